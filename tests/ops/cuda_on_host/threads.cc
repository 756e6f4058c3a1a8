// The threads of a block as fibers of one thread: each runs until it meets the others, or ends.
// A stack of its own comes from makecontext; later turns go by _setjmp and _longjmp, which make no system call.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr unsigned kWarp = 32;
constexpr size_t kStackBytes = 128 << 10;

enum class State { kReady, kAtBlock, kAtWarp, kDone };

struct Fiber {
  ucontext_t fresh;
  jmp_buf left;  // where it stopped
  bool started;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  dim3 index;
  State state;
  unsigned number;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<uint32_t> exchange;
jmp_buf scheduler;
Fiber* current;
const std::function<void()>* body;
bool backwards = false;

[[noreturn]] void die(const char* why) {
  std::fprintf(stderr, "kernel on the host: %s\n", why);
  std::abort();
}

void enter() {
  (*body)();
  current->state = State::kDone;
  _longjmp(scheduler, 1);
}

void wait_as(State state) {
  current->state = state;
  if (_setjmp(current->left) == 0) _longjmp(scheduler, 1);
}

void run(Fiber& fiber) {
  current = &fiber;
  threadIdx = fiber.index;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.left, 1);
  fiber.started = true;
  setcontext(&fiber.fresh);
}

void start(Fiber& fiber, unsigned number) {
  fiber.number = number;
  fiber.index = dim3(number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y);
  fiber.state = State::kReady;
  fiber.started = false;
  getcontext(&fiber.fresh);
  fiber.fresh.uc_stack.ss_sp = fiber.stack.get();
  fiber.fresh.uc_stack.ss_size = kStackBytes;
  fiber.fresh.uc_link = nullptr;
  makecontext(&fiber.fresh, enter, 0);
}

// Lets the lanes of a warp go on that have all come to a shuffle; whether there are such.
bool release_warp(unsigned first, unsigned end) {
  unsigned waiting = 0;
  for (unsigned i = first; i < end; ++i) waiting += fibers[i]->state == State::kAtWarp;
  if (waiting == 0) return false;
  if (waiting < kWarp) die("a shuffle that a part of the warp does not reach");
  for (unsigned i = first; i < end; ++i) fibers[i]->state = State::kReady;
  return true;
}

// Lets all go on who wait for the block: nobody is ready any more, so these are all that have not ended.
bool release_block(unsigned threads) {
  bool released = false;
  for (unsigned i = 0; i < threads; ++i) {
    if (fibers[i]->state != State::kAtBlock) continue;
    fibers[i]->state = State::kReady;
    released = true;
  }
  return released;
}

// One warp, as far as it comes without the others: so a warp that does not wait where it must runs ahead of them.
void run_warp(unsigned first, unsigned end) {
  do {
    for (unsigned i = first; i < end; ++i) {
      Fiber& fiber = *fibers[backwards ? first + end - 1 - i : i];
      if (fiber.state == State::kReady) run(fiber);
    }
  } while (release_warp(first, end));
}

void run_block(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) start(*fibers[i], i);
  const unsigned warps = (threads + kWarp - 1) / kWarp;
  do {
    for (unsigned i = 0; i < warps; ++i) {
      const unsigned warp = backwards ? warps - 1 - i : i;
      run_warp(warp * kWarp, std::min((warp + 1) * kWarp, threads));
    }
  } while (release_block(threads));
}

}  // namespace

void __syncthreads() { wait_as(State::kAtBlock); }
void meet_warp() { wait_as(State::kAtWarp); }
unsigned lane() { return current->number % kWarp; }
uint32_t& exchange_word(unsigned lane_of_thread) {
  return exchange[current->number / kWarp * kWarp + lane_of_thread];
}

void run_on_host(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  const unsigned threads = block.x * block.y * block.z;
  if (threads == 0 || threads > 1024 || grid.y > 65535 || grid.z > 65535) die("a grid that no GPU has");
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  exchange.assign((threads + kWarp - 1) / kWarp * kWarp, 0);
  body = &kernel;
  gridDim = grid;
  blockDim = block;
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks; ++i) {
    const uint64_t b = backwards ? blocks - 1 - i : i;
    blockIdx = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                    static_cast<unsigned>(b / grid.x / grid.y));
    run_block(threads);
  }
}

// Threads and blocks in their order, or in the opposite one: a result that depends on it shows a missing meeting.
extern "C" __attribute__((visibility("default"))) void on_host_run_backwards(int yes) { backwards = yes != 0; }
