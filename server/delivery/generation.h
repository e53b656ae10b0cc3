// One request in the server, from its arrival to its last message: its choices, what the client has not got
// yet, and how it ended. Built on the thread that received the call, then owned by the front loop's thread.
#ifndef ORRERY_SERVER_DELIVERY_GENERATION_H_
#define ORRERY_SERVER_DELIVERY_GENERATION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "grpcpp/support/status.h"
#include "orrery/v1/inference.pb.h"
#include "scheduler/types/decision_record.h"
#include "scheduler/types/request.h"
#include "server/delivery/choice_stream.h"
#include "server/delivery/generation_spec.h"
#include "server/delivery/stream_writer.h"
#include "server/delivery/text_codec.h"

namespace orrery {

// How a request ended, as the label of orrery_requests_total.
enum class Outcome : uint8_t { kStop, kLength, kCancelled, kDeadline, kRejected, kInvalid, kFailed };
inline constexpr int kNumOutcomes = 7;
const char* NameOf(Outcome outcome);

// What is measured about a request that was served; Never() where it never came so far.
struct RequestTimes {
  Time arrived, first_scheduled = Time::Never(), first_token = Time::Never(), last_token = Time::Never();
  int64_t prompt_tokens = 0, cached_tokens = 0;
  int64_t output_tokens = 0;   // all choices
  int64_t longest_choice = 0;  // output tokens of the choice that ended last
};

class Generation {
 public:
  Generation(RequestId id, GenerationSpec spec, const TextCodec& codec, std::shared_ptr<StreamWriter> writer,
             Time arrived);

  RequestId id() const { return id_; }
  const GenerationSpec& spec() const { return spec_; }
  Time arrived() const { return arrived_; }
  Time deadline() const { return arrived_ + spec_.deadline; }
  const std::shared_ptr<StreamWriter>& writer() const { return writer_; }

  // A choice was sent to a worker, on its n-th try. False: the client has it all, the worker need not begin.
  bool OnSent(const SampleKey& key, WorkerId worker);
  // No worker will say anything more about a choice, and none goes on with it, for this reason.
  void OnLost(const SampleKey& key, const absl::Status& why);
  WorkerId worker() const { return workers_.empty() ? WorkerId{} : workers_.back(); }  // it was sent to last
  // What was decided about this request, for its final message: by the route policy that placed it, and by
  // the batch policy that planned the step of its first token.
  void set_route_decision(const DecisionRecord& record) { route_ = record; }
  void set_batch_decision(const DecisionRecord& record) { batch_ = record; }
  // What the router gets; the same for every choice.
  Submit Prototype() const;

  struct Effect {
    bool token = false;          // a token that the client will get
    bool first = false;          // the first one of the request
    bool cancel_sample = false;  // a stop string is complete: the worker must be told
    Duration gap;                // to the token before it in its choice; 0: none
  };
  Effect OnEvent(const TokenEvent& event);
  void OnSampleReport(const SampleKey& key, const SampleReport& report);
  // Ends the choices that still run, without waiting for the worker.
  void EndAll(FinishReason reason);

  // Hands messages to the writer until it takes no more. True once the last one is handed over: the request
  // is over and the writer must not be used again.
  bool Pump(Time now);
  // Since when the writer has taken nothing of what there is to send; Never(): nothing waits.
  Time blocked_since() const { return blocked_since_; }

  bool all_ended() const;
  bool has_token() const { return has_token_; }
  Outcome outcome() const;  // REQUIRES: all_ended()
  RequestTimes times() const;
  // Whether the latency objectives were met; nothing where there are none, or where the client gave the
  // request up.
  std::optional<bool> MetSlo(Outcome outcome) const;
  // Bytes made for the client that the writer has not taken.
  size_t pending_bytes() const;

 private:
  struct Choice {
    ChoiceStream stream;
    std::optional<SampleReport> report;
    bool report_due = false;  // ended by us; the worker's last word is on its way
    bool sent_finished = false;
  };

  bool SendStarted();
  bool Taken(bool taken);  // counts
  bool SendChoice(Choice* choice);
  void FillFinished(const Choice& choice);
  void FillEffective(orrery::v1::Sampling* out) const;

  bool over() const { return num_finished_sent_ == choices_.size(); }

  const RequestId id_;
  const GenerationSpec spec_;
  std::shared_ptr<StreamWriter> writer_;
  const Time arrived_;
  std::vector<WorkerId> workers_;  // by attempt
  DecisionRecord route_, batch_;   // without a policy's name: not made yet
  std::vector<Choice> choices_;    // never resized: streams point into this object
  size_t next_choice_ = 0;         // whose turn it is to send
  size_t num_finished_sent_ = 0;
  bool has_token_ = false;
  bool started_sent_ = false;
  uint64_t num_taken_ = 0;  // messages the writer took
  Time blocked_since_ = Time::Never();
  grpc::Status status_;  // of the end
  absl::Status loss_;    // why a choice could not go on
  orrery::v1::GenerateResponse message_;
};

}  // namespace orrery

#endif  // ORRERY_SERVER_DELIVERY_GENERATION_H_
