#include "server/simulate/simulate_command.h"

namespace orrery::simulate {
namespace {

void AddWorkloadFlags(CLI::App* app, SimulateOptions* o) {
  app->add_option("--trace", o->trace, "Trace file, also .xz or .gz");
  app->add_option("--trace-format", o->trace_format, "azure, mooncake, lengths, servegen, classes or bench");
  app->add_option("--arrival", o->arrival,
                  "poisson, gamma, trace (default: its own times) or saturated (a pool that never runs dry)");
  app->add_option("--rate", o->rate, "Requests per second (default: the trace's)");
  app->add_option("--rho", o->rho, "Load: rate = RHO * workers * slots / (mean output * step time)");
  app->add_option("--burstiness", o->burstiness,
                  "Shape of gamma arrivals, CV = 1 / sqrt(shape) (default: the trace's)");
  app->add_option("--num-requests", o->num_requests, "Requests (default: the rows of the trace)");
  app->add_option("--warmup", o->warmup,
                  "The first so many requests are not measured, nor are loads until they have come");
  app->add_option("--pool", o->pool, "Saturated: requests kept waiting (default: 4 x workers)");
  app->add_option("--warmup-steps", o->warmup_steps, "Saturated: steps before measuring (1500)");
  app->add_option("--steps", o->steps, "Saturated: steps measured (3000)");
  app->add_option("--max-tokens", o->max_tokens,
                  "What every request asks for, as policies see it; exact: what it will make")
      ->capture_default_str();
  app->add_option("--slo", o->slo, "Targets in milliseconds: ttft=MS,tpot=MS,e2e=MS");
  app->add_option("--class", o->class_file, "YAML list of {name, share, priority, tenant, slo}");
  app->add_option("--seed", o->seed, "Of arrivals and draws (default 0)");
  app->add_option("--seeds", o->seeds, "Runs with seeds 0 to K-1");
}

void AddSystemFlags(CLI::App* app, SimulateOptions* o) {
  app->add_option("--scheduler", o->scheduler, "NAME[:key=value,...]")->capture_default_str();
  app->add_option("--router", o->router, "NAME[:key=value,...]")->capture_default_str();
  app->add_option("--predictor", o->predictor, "NAME[:key=value,...]")->capture_default_str();
  app->add_option("--eviction", o->eviction, "NAME[:key=value,...]")->capture_default_str();
  app->add_option("--workers", o->workers, "Workers")->capture_default_str();
  app->add_flag("--barrier", o->barrier, "All workers step together");
  app->add_option(
      "--cost-profile", o->cost_profile,
      "Step times: FILE[#GPU/MODEL/tpN/WEIGHTS], FOLDER#GPU/MODEL/tpN/WEIGHTS[/KV] (put together from "
      "tables of kernels), constant:MS, tile:c=MS,a=MS,b0=N or linear:...");
  app->add_option("--believed-cost", o->believed_cost,
                  "What policies take step times for (default: the same)");
  app->add_option("--max-num-seqs,--slots", o->max_num_seqs, "Sequences a worker runs at once")
      ->capture_default_str();
  app->add_option("--max-step-tokens", o->max_step_tokens, "Tokens of a step")->capture_default_str();
  app->add_option("--kv-cache-tokens", o->kv_cache_tokens, "Of one worker (default: the profile's capacity)");
  app->add_option("--block-tokens", o->block_tokens, "Tokens of a KV block")->capture_default_str();
  app->add_option("--max-queue-tokens", o->max_queue_tokens,
                  "Refuse beyond this many waiting tokens (0: never)");
  app->add_option("--prefill", o->prefill, "chunked, or none: prompts are resident once placed");
  app->add_flag("--no-prefix-cache", o->no_prefix_cache, "Nothing is shared between prompts");
  app->add_option("--fail", o->fail, "worker=W,at=S,for=S: lost at S seconds, back after (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  app->add_option("--slow", o->slow, "worker=W,factor=X: its steps take X times as long (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  app->add_option("--power", o->power, "idle=W,peak=W,gamma=G of one worker, for energy_j");
}

}  // namespace

CLI::App* RegisterSimulate(CLI::App& app, SimulateOptions* o) {
  CLI::App* command =
      app.add_subcommand("simulate", "Serve a trace in simulated time, with the live policies");
  AddWorkloadFlags(command, o);
  AddSystemFlags(command, o);
  command->add_option(
      "--compare", o->compare,
      "P,P,...: several schedulers (or routers) on the same requests, with intervals over --seeds");
  command->add_option("--html", o->html, "Also write plots as one page");
  command->add_option("--replay", o->replay, "Journal of `orreryd --record`: every decision must come again");
  command->add_option("--explain", o->explain, "Tell the story of request N, counted from 0 by arrival");
  command->add_flag("--json", o->json, "One JSON document on standard output");
  return command;
}

}  // namespace orrery::simulate
