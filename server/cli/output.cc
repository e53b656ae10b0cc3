#include "server/cli/output.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/base/errors.h"

namespace orrery::cli {
namespace {

using nlohmann::json;

// Invalid UTF-8 must not stop an error from being told.
void Print(const json& document) {
  std::puts(document.dump(2, ' ', false, json::error_handler_t::replace).c_str());
}

int Report(absl::StatusCode code, const orrery::v1::ErrorInfo& info, const std::string& message,
           int exit_code, bool as_json) {
  if (as_json) {
    Print({{"error",
            {{"code", absl::StatusCodeToString(code)},
             {"field", info.field()},
             {"limit", info.limit()},
             {"reason", info.reason()},
             {"message", message}}}});
  } else {
    std::fprintf(stderr, "orrery: %s\n", message.c_str());
  }
  return exit_code;
}

}  // namespace

int Fail(const absl::Status& status, bool json) {
  const bool ours =
      status.code() == absl::StatusCode::kInternal || status.code() == absl::StatusCode::kUnknown;
  return Report(status.code(), ErrorInfoOf(status), std::string(status.message()), ours ? kInternal : kUsage,
                json);
}

int Fail(const grpc::Status& status, const std::string& target, bool json) {
  const auto info = ErrorInfoOf(status);
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (!info && status.error_code() == grpc::UNAVAILABLE) {
    return Report(code, {}, absl::StrCat("no server at ", target, ": ", status.error_message()), kUnreachable,
                  json);
  }
  return Report(code, info.value_or(orrery::v1::ErrorInfo()), status.error_message(), kRefused, json);
}

absl::Status ReadFile(const std::string& path, size_t limit, std::string* text) {
  std::FILE* file = path == "-" ? stdin : std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  char chunk[1 << 16];
  size_t count = 0;
  while (text->size() <= limit && (count = std::fread(chunk, 1, sizeof chunk, file)) > 0)
    text->append(chunk, count);
  const bool failed = std::ferror(file) != 0;
  if (file != stdin) std::fclose(file);
  if (failed) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  if (text->size() > limit)
    return absl::InvalidArgumentError(absl::StrCat(path, ": larger than ", limit, " bytes"));
  return absl::OkStatus();
}

}  // namespace orrery::cli
