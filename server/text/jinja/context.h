#ifndef ORRERY_SERVER_TEXT_JINJA_CONTEXT_H_
#define ORRERY_SERVER_TEXT_JINJA_CONTEXT_H_

// What bounds one parse or one rendering, and its first error. Errors are sticky: the first one is kept, and
// everything that follows returns at once with undefined values, so the interpreter needs no check after
// every operation.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"

namespace orrery::jinja {

struct Limits {
  size_t source_bytes = 1 << 20;   // of a template
  int parse_depth = 100;           // nested statements and expressions
  int render_depth = 250;          // nested evaluations, macro calls included
  int value_depth = 32;            // lists in lists
  int64_t steps = 2'000'000;       // evaluations, elements touched
  int64_t work_bytes = 256 << 20;  // of all texts made while rendering
  size_t output_bytes = 16 << 20;  // of the result and of every single text
};

class Context {
 public:
  explicit Context(const Limits& limits) : limits_(limits) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }
  const Limits& limits() const { return limits_; }
  void set_line(int line) { line_ = line; }
  // Levels of recursion now in use, for a DepthGuard.
  int& depth() { return depth_; }

  // The template does something it cannot: INVALID_ARGUMENT with the line.
  template <typename... Parts>
  void Fail(const Parts&... parts) {
    if (!ok()) return;
    std::string message = Where();
    (AppendTo(message, parts), ...);
    status_ = absl::InvalidArgumentError(message);
  }
  // RESOURCE_EXHAUSTED naming the limit.
  void Exceeded(std::string_view what, int64_t limit) {
    if (!ok()) return;
    std::string message = Where();
    message.append("more than the limit of ").append(std::to_string(limit)).append(" ").append(what);
    status_ = absl::ResourceExhaustedError(message);
  }

  // Charges work; false once anything has failed.
  bool Step(size_t count = 1) {
    steps_ += static_cast<int64_t>(count);
    if (steps_ > limits_.steps) Exceeded("steps", limits_.steps);
    return ok();
  }
  // Charges `count` bytes of a text that has `total` bytes with them.
  bool Bytes(size_t count, size_t total) {
    if (total > limits_.output_bytes) Exceeded("bytes of text", static_cast<int64_t>(limits_.output_bytes));
    work_bytes_ += static_cast<int64_t>(count);
    if (work_bytes_ > limits_.work_bytes) Exceeded("bytes of work", limits_.work_bytes);
    return ok();
  }

 private:
  std::string Where() const { return std::string("chat template line ").append(std::to_string(line_)).append(": "); }
  static void AppendTo(std::string& message, std::string_view part) { message.append(part); }
  static void AppendTo(std::string& message, size_t part) { message.append(std::to_string(part)); }

  const Limits limits_;
  absl::Status status_;
  int line_ = 1;
  int depth_ = 0;
  int64_t steps_ = 0;
  int64_t work_bytes_ = 0;
};

// Counts a level of recursion while it lives; fails the context below `limit` levels.
class DepthGuard {
 public:
  DepthGuard(Context& context, int limit) : depth_(context.depth()) {
    if (++depth_ > limit) context.Exceeded("nested levels", limit);
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace orrery::jinja

#endif  // ORRERY_SERVER_TEXT_JINJA_CONTEXT_H_
