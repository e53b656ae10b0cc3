#include "server/bench/bench_command.h"

namespace orrery::bench {
namespace {

void AddLoadFlags(CLI::App* app, BenchOptions* o) {
  app->add_option("--num-requests", o->num_requests,
                  "Measured requests (default: the rows of the dataset, at most 1000)");
  app->add_option("--rate", o->rate, "Open loop: requests per second; inf sends all at once");
  app->add_option("--arrival", o->arrival, "Open loop: poisson (default), gamma or constant");
  app->add_option("--burstiness", o->burstiness,
                  "Shape of gamma arrivals: 1 is Poisson, less is burstier (CV = 1 / sqrt(shape))");
  app->add_option("--concurrency", o->concurrency, "Closed loop: this many requests in flight");
  app->add_flag("--use-trace-times", o->use_trace_times, "Send at the times of the trace");
  app->add_option("--time-scale", o->time_scale, "Trace times are multiplied by it (2: twice as long)")
      ->capture_default_str();
  app->add_option("--max-in-flight", o->max_in_flight,
                  "Hold sends back at so many open requests (the wait counts as latency)");
  app->add_option("--warmup", o->warmup, "Requests sent first, from the same load, that are not measured");
  app->add_option("--slo", o->slo, "Targets in milliseconds: ttft=MS,tpot=MS,e2e=MS");
  app->add_option("--class", o->class_file,
                  "YAML list of {name, share, dataset, rate, priority, tenant, slo, cancel_probability}");
}

void AddDataFlags(CLI::App* app, BenchOptions* o) {
  app->add_option("--dataset", o->dataset, "lengths, azure, mooncake, sharegpt, prompts or random");
  app->add_option("--path", o->paths, "File of the dataset, also .xz or .gz (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  app->add_option("--input-len", o->input_len, "random: prompt tokens")->capture_default_str();
  app->add_option(
      "--output-len", o->output_len,
      "random: output tokens (128); prompts: most output tokens (256); sharegpt: replaces the reply's");
  app->add_option("--range-ratio", o->range_ratio,
                  "random: lengths are uniform in [len (1 - X), len (1 + X)]")
      ->capture_default_str();
  app->add_option("--scale-lengths", o->scale_lengths,
                  "Shrink all lengths by one factor so that the longest prompt + output fits this context");
  app->add_flag("--ignore-eos", o->ignore_eos, "Every request runs to its output length");
  app->add_option("--temperature", o->temperature, "Sampling temperature (default: the model's)");
  app->add_option("--model", o->model_folder,
                  "Checkpoint folder to read the ordinary token ids from (default: ask the server)");
  app->add_option("--seed", o->seed, "Of arrivals, lengths, prompts, classes and sampling")
      ->capture_default_str();
}

}  // namespace

CLI::App* RegisterBench(CLI::App& app, BenchOptions* options) {
  CLI::App* bench = app.add_subcommand("bench", "Load-test a server and measure latency and throughput");
  bench->add_option("--target", options->target, "HOST:PORT of the server")->capture_default_str();
  bench->add_option("--api", options->api, "grpc")->capture_default_str();
  AddDataFlags(bench, options);
  AddLoadFlags(bench, options);
  bench->add_option("--ready-timeout", options->ready_timeout_s, "Seconds to wait for the server")
      ->capture_default_str();
  bench
      ->add_option("--timeout", options->timeout_s,
                   "Seconds after which a request has failed (reason timeout); 0: none")
      ->capture_default_str();
  bench->add_flag("--json", options->json, "One JSON document on standard output");
  bench->add_option("--save", options->save, "Write the measurement, the schedule and a row per request");
  bench->add_option("--html", options->html, "Write a report with plots, one self-contained page");
  bench->parse_complete_callback([bench, options] {
    options->given.clear();
    for (const CLI::Option* option : bench->get_options()) {
      if (option->count() == 0 || option->get_lnames().empty()) continue;
      std::string value;
      for (const std::string& one : option->results()) value += (value.empty() ? "" : " ") + one;
      options->given.emplace_back(option->get_lnames()[0], value);
    }
  });
  return bench;
}

}  // namespace orrery::bench
