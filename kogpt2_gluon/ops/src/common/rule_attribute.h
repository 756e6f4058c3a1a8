// The attribute that names an update rule.
#pragma once
#include "library_interface.h"
#include "update_rules.h"

namespace kogpt2 {

inline Rule rule_of(const Attributes& attributes, const char* key, const char* otherwise) {
  const std::string name = attributes.text(key, otherwise);
  const int number = find_rule(name);
  if (number < 0) fail(key, "='", name, "': ", kRuleNames);
  return static_cast<Rule>(number);
}

}  // namespace kogpt2
