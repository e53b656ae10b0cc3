// Everything `orrery bench` can be told, as given: names are not resolved and numbers not checked yet.
#ifndef ORRERY_SERVER_BENCH_BENCH_OPTIONS_H_
#define ORRERY_SERVER_BENCH_BENCH_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace orrery::bench {

struct BenchOptions {
  std::string target = "127.0.0.1:50051";
  std::string api = "grpc";
  bool json = false;
  std::string dataset;  // required without classes
  std::vector<std::string> paths;
  std::optional<int64_t> num_requests;
  std::optional<double> rate;
  std::optional<std::string> arrival;
  std::optional<double> burstiness;
  std::optional<int32_t> concurrency;
  bool use_trace_times = false;
  double time_scale = 1;
  int64_t max_in_flight = 0;
  int64_t warmup = 0;
  bool ignore_eos = false;
  std::string slo;
  std::string class_file;
  int32_t input_len = 1024;
  std::optional<int32_t> output_len;
  double range_ratio = 0;
  int32_t scale_lengths = 0;
  std::optional<double> temperature;
  std::string model_folder;
  uint64_t seed = 0;
  double ready_timeout_s = 10;
  double timeout_s = 600;  // of a request; 0: none
  std::string save;
  std::string html;
  // The flags that were given, for the environment stamp.
  std::vector<std::pair<std::string, std::string>> given;
};

}  // namespace orrery::bench

#endif  // ORRERY_SERVER_BENCH_BENCH_OPTIONS_H_
