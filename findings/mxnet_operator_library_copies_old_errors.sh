#!/usr/bin/env bash
# MXNet: after an operator of an extension library has failed, every later call copies the message, and keeps the copy.
#
# Guess: the message of a failed operator is read once, for the exception, and that is the end of it.
# What happens: MXNet 1.9.1 asks the library for its messages after each call, whether it failed or not. The library's side,
# src/lib_api.cc, which every extension library is built with, never forgets a message, hands out a copy on the heap each
# time (MXerrorMsgs::get), and nobody frees it. So an exception shows all earlier errors of the process too, and
# calls that succeed take longer and leave memory behind, in proportion to how many have failed before.
# It matters to a service that refuses bad requests and goes on, and to test suites: a process of ours grew to 11 GB.
#
# Output on 2026-11-30:
#   mxnet 1.9.1, numpy 1.23.5
#   2,000 calls, nothing has failed:  less than 4 MB more
#   messages in the 100th exception: 100
#   2,000 calls, 100 have failed:     more than 100 MB more
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5

cat > twice.cc <<'EOF'
#include "mxnet/lib_api.h"

using namespace mxnet::ext;
using Map = std::unordered_map<std::string, std::string>;

MXReturnValue parse(const Map&, int* inputs, int* outputs) {
  *inputs = *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue infer_type(const Map&, std::vector<int>* in, std::vector<int>* out) {
  (*out)[0] = (*in)[0];
  return MX_SUCCESS;
}

MXReturnValue infer_shape(const Map&, std::vector<std::vector<unsigned int>>* in,
                          std::vector<std::vector<unsigned int>>* out) {
  if ((*in)[0].size() == 3) {
    MX_ERROR_MSG << "three axes are one too many, as everybody who has read this far will certainly agree";
    return MX_FAIL;
  }
  (*out)[0] = (*in)[0];
  return MX_SUCCESS;
}

MXReturnValue forward(const Map&, std::vector<MXTensor>* in, std::vector<MXTensor>* out, const OpResource&) {
  (*out)[0].data<float>()[0] = 2.0f * (*in)[0].data<float>()[0];
  return MX_SUCCESS;
}

REGISTER_OP(twice).setForward(forward, "cpu").setParseAttrs(parse).setInferType(infer_type).setInferShape(infer_shape);

MXReturnValue initialize(int) { return MX_SUCCESS; }
EOF
mxnet=$(venv/bin/python -c 'import importlib.util as u; print(u.find_spec("mxnet").submodule_search_locations[0])')
"${CXX:-g++}" -shared -fPIC -O1 -std=c++17 -Wl,-Bsymbolic -I"$mxnet/include" twice.cc "$mxnet/src/lib_api.cc" -o libtwice.so

venv/bin/python -W ignore - <<'EOF'
import os
import re
from pathlib import Path

import mxnet as mx
import numpy as np

print(f"mxnet {mx.__version__}, numpy {np.__version__}")
mx.library.load(str(Path("libtwice.so").resolve()), verbose=False)


def memory():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth():
    before = memory()
    for _ in range(2000):
        mx.nd.twice(mx.nd.ones((1,))).wait_to_read()
    return (memory() - before) / 2**20


growth()
clean = growth()
print("2,000 calls, nothing has failed: ", "less than 4 MB more" if clean < 4 else f"{clean:.0f} MB more")
for _ in range(100):
    try:
        mx.nd.twice(mx.nd.ones((1, 1, 1)))
    except mx.MXNetError as error:
        count = len(re.findall("three axes", str(error)))
print("messages in the 100th exception:", count)
after = growth()
shown = "more than 100 MB more" if after > 100 else f"{after:.0f} MB more"
print("2,000 calls, 100 have failed:    ", shown)
assert clean < 4 and count == 100 and after > 100, (clean, count, after)
EOF
