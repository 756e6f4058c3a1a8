// The attributes of every operator with dropout.
#pragma once
#include <cstdint>

#include "library_interface.h"

namespace kogpt2 {

// p: the probability that an element is dropped. site: a number that no other dropout of the network has.
struct DropoutAttributes {
  double probability;
  uint32_t site;

  explicit DropoutAttributes(const Attributes& attributes)
      : probability(attributes.number("p", 0.0)), site(static_cast<uint32_t>(attributes.integer("site", 0, 0))) {
    if (!(probability >= 0.0 && probability < 1.0)) {
      fail("p=", probability, ": a dropout probability is at least 0 and below 1");
    }
  }
};

}  // namespace kogpt2
