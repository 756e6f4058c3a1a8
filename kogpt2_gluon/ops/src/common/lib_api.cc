// MXNet's side of the library interface, with error messages of our own.
//
// MXNet asks for the messages after every call, also after one that succeeded. Its own lib_api.cc (1.9.1) keeps every
// message of the process, copies all of them each time, and never frees the copies: after the refusals of two files of
// tests a training step of a small network took 2.6 times as long, and 4 MB more than the one before. Threads also write
// there without a lock. Here a thread has the message of its last call alone (failure.h).
#define _msgSize kogpt2_lib_api_message_count
#define _msgGet kogpt2_lib_api_message
#include "src/lib_api.cc"
#undef _msgSize
#undef _msgGet

#include "failure.h"

extern "C" int _msgSize() { return kogpt2::failure().empty() ? 0 : 1; }

extern "C" void _msgGet(int, const char** message) { *message = kogpt2::failure().c_str(); }
