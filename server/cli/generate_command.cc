#include "server/cli/generate_command.h"

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "orrery/v1/inference.grpc.pb.h"
#include "server/base/client_channel.h"
#include "server/base/errors.h"
#include "server/cli/output.h"

namespace orrery::cli {
namespace {

using nlohmann::json;
namespace v1 = ::orrery::v1;

struct Choice {
  std::string text;
  std::vector<uint32_t> token_ids;
  json logprobs = json::array();
  json prompt_logprobs = json::array({nullptr});  // nothing comes before the first token
  v1::Finished finished;
};

struct Answer {
  v1::Started started;
  std::map<uint32_t, Choice> choices;
  bool finished = false;
};

// FINISH_REASON_STOP -> "stop".
std::string NameOf(v1::FinishReason reason) {
  return absl::AsciiStrToLower(absl::StripPrefix(v1::FinishReason_Name(reason), "FINISH_REASON_"));
}

json ToJson(const v1::TokenLogprob& logprob) {
  json top = json::array();
  for (const auto& entry : logprob.top()) top.push_back({entry.id(), entry.logprob()});
  return {{"id", logprob.id()}, {"logprob", logprob.logprob()}, {"top", std::move(top)}};
}

json DecisionsToJson(const v1::Finished& finished) {
  json decisions = json::array();
  for (const auto& decision : finished.decisions()) {
    decisions.push_back({{"kind", decision.kind()},
                         {"policy", decision.policy()},
                         {"objective", decision.objective()},
                         {"value", decision.value()},
                         {"bound", decision.has_bound() ? json(decision.bound()) : json()},
                         {"work", decision.work()}});
  }
  return decisions;
}

json ToJson(const Choice& choice, bool with_logprobs) {
  const v1::Finished& finished = choice.finished;
  const v1::Timings& timings = finished.timings();
  json out = {{"text", choice.text},
              {"token_ids", choice.token_ids},
              {"finish_reason", NameOf(finished.finish_reason())},
              {"usage",
               {{"prompt_tokens", finished.usage().prompt_tokens()},
                {"completion_tokens", finished.usage().completion_tokens()},
                {"cached_tokens", finished.usage().cached_tokens()}}},
              {"timings",
               {{"queue_ms", timings.queue_ms()},
                {"prefill_ms", timings.prefill_ms()},
                {"decode_ms", timings.decode_ms()},
                {"ttft_ms", timings.ttft_ms()}}},
              {"seed", finished.effective().seed()},
              {"decisions", DecisionsToJson(finished)}};
  if (finished.stop_reason_case() == v1::Finished::kStopText) out["stop_reason"] = finished.stop_text();
  if (finished.stop_reason_case() == v1::Finished::kStopTokenId)
    out["stop_reason"] = finished.stop_token_id();
  if (with_logprobs) out["logprobs"] = choice.logprobs;
  return out;
}

json ToJson(const Answer& answer, const v1::Sampling& asked) {
  const bool with_logprobs = asked.has_logprobs();
  json out = ToJson(answer.choices.begin()->second, with_logprobs);
  if (asked.has_prompt_logprobs()) out["prompt_logprobs"] = answer.choices.begin()->second.prompt_logprobs;
  out["request_id"] = answer.started.request_id();
  out["prompt_token_ids"] = answer.started.prompt_token_ids();
  if (answer.choices.size() > 1) {
    json choices = json::array();
    for (const auto& [index, choice] : answer.choices) {
      choices.push_back(ToJson(choice, with_logprobs));
      choices.back()["index"] = index;
    }
    out["choices"] = std::move(choices);
  }
  return out;
}

void Take(const v1::GenerateResponse& message, bool stream, Answer* answer) {
  if (message.has_started()) {
    answer->started = message.started();
  } else if (message.has_delta()) {
    const v1::Delta& delta = message.delta();
    Choice& choice = answer->choices[delta.choice()];
    choice.text += delta.text();
    choice.token_ids.insert(choice.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    for (const auto& logprob : delta.logprobs()) choice.logprobs.push_back(ToJson(logprob));
    for (const auto& logprob : delta.prompt_logprobs()) choice.prompt_logprobs.push_back(ToJson(logprob));
    if (stream) {
      std::fwrite(delta.text().data(), 1, delta.text().size(), stdout);
      std::fflush(stdout);
    }
  } else if (message.has_finished()) {
    answer->choices[message.finished().choice()].finished = message.finished();
    answer->finished = true;
  }
}

// Several choices interleave on the wire: shown one after the other.
void PrintChoices(const Answer& answer) {
  for (const auto& [index, choice] : answer.choices) std::printf("[%u] %s\n", index, choice.text.c_str());
}

int FailTimeout(const GenerateOptions& options, bool answered) {
  v1::ErrorInfo info;
  info.set_reason("timeout");
  info.set_field("timeout");
  info.set_limit(absl::StrCat(options.timeout_s, " s"));
  const absl::Status status = ErrorWithInfo(
      absl::StatusCode::kDeadlineExceeded,
      absl::StrCat(options.target, ": no end of the answer within ", options.timeout_s, " s"), info);
  const int code = Fail(ToGrpcStatus(status), options.target, options.json);
  return answered ? code : kUnreachable;
}

}  // namespace

int RunGenerate(const GenerateOptions& options) {
  auto request = MakeRequest(options);
  if (!request.ok()) return Fail(request.status(), options.json);
  auto stub = v1::Inference::NewStub(NewClientChannel(options.target));
  grpc::ClientContext context;
  if (options.timeout_s > 0) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(options.timeout_s)));
  }
  auto reader = stub->Generate(&context, *request);
  const bool stream = !options.json && request->sampling().n() <= 1;
  Answer answer;
  v1::GenerateResponse message;
  while (reader->Read(&message)) Take(message, stream, &answer);
  const grpc::Status status = reader->Finish();
  if (stream && answer.finished) std::puts("");
  if (!options.json && !stream) PrintChoices(answer);
  // An answer that ended at its deadline is an answer, and a failure.
  if (options.json && answer.finished) {
    std::puts(
        ToJson(answer, request->sampling()).dump(2, ' ', false, json::error_handler_t::replace).c_str());
    return status.ok() ? kDone : kRefused;
  }
  // A deadline of the request itself ends with a final message or a reason.
  const bool late =
      status.error_code() == grpc::DEADLINE_EXCEEDED && !answer.finished && !ErrorInfoOf(status);
  if (late && options.timeout_s > 0) {
    return FailTimeout(options, /*answered=*/!answer.started.request_id().empty());
  }
  return status.ok() ? kDone : Fail(status, options.target, options.json);
}

}  // namespace orrery::cli
