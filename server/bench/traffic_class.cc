#include "server/bench/traffic_class.h"

#include <yaml-cpp/yaml.h>

#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"
#include "server/bench/unknown_name.h"

namespace orrery::bench {
namespace {

constexpr size_t kMaxClasses = 256;

// Reads the nodes of one file; every error names the file and the line.
class ClassReader {
 public:
  ClassReader(std::string path, const TrafficClass& defaults) : path_(std::move(path)), defaults_(defaults) {}

  absl::StatusOr<TrafficClass> Read(const YAML::Node& node) {
    if (!node.IsMap()) return Error(node, "a class must be a mapping");
    TrafficClass out = defaults_;
    out.name.clear();
    for (const auto& entry : node) {
      const std::string key = entry.first.Scalar();
      if (auto s = ReadField(key, entry.first, entry.second, &out); !s.ok()) return s;
    }
    if (out.name.empty()) return Error(node, "name: a class needs one");
    return out;
  }

  absl::Status Error(const YAML::Node& node, absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ":", node.Mark().line + 1, ": ", message));
  }

 private:
  absl::Status ReadField(const std::string& key, const YAML::Node& key_node, const YAML::Node& value,
                         TrafficClass* out) {
    if (key == "name") return Text(key, value, &out->name);
    if (key == "tenant") return Text(key, value, &out->tenant);
    if (key == "share")
      return Number(
          key, value, &out->share, [](double v) { return v > 0; }, "above 0");
    if (key == "rate") {
      double rate = 0;
      auto status = Number(
          key, value, &rate, [](double v) { return v > 0; }, "above 0");
      out->rate = rate;
      return status;
    }
    if (key == "priority") {
      double priority = 0;
      auto status = Number(
          key, value, &priority, [](double v) { return v == std::floor(v) && std::abs(v) <= 1e9; },
          "an integer");
      out->priority = static_cast<int32_t>(priority);
      return status;
    }
    if (key == "cancel_probability") {
      return Number(
          key, value, &out->cancel_probability, [](double v) { return v >= 0 && v <= 1; }, "in [0, 1]");
    }
    if (key == "slo") return ReadSlo(value, &out->slo);
    if (key == "dataset") return ReadDataset(value, &out->dataset);
    return Error(key_node, UnknownName("class", key,
                                       {"name", "share", "dataset", "rate", "priority", "tenant", "slo",
                                        "cancel_probability"})
                               .message());
  }

  absl::Status ReadSlo(const YAML::Node& node, SloTargets* slo) {
    *slo = {};
    if (node.IsScalar()) {
      auto parsed = ParseSlo(node.Scalar());
      if (!parsed.ok()) return Error(node, parsed.status().message());
      *slo = *parsed;
      return absl::OkStatus();
    }
    if (!node.IsMap()) return Error(node, "slo: must be ttft=MS,... or a mapping");
    for (const auto& entry : node) {
      double value = 0;
      const std::string key = entry.first.Scalar();
      if (auto s = Number(
              key, entry.second, &value, [](double v) { return v > 0; }, "above 0");
          !s.ok()) {
        return s;
      }
      if (auto s = SetSloTarget(key, value, slo); !s.ok()) return Error(entry.first, s.message());
    }
    return absl::OkStatus();
  }

  absl::Status ReadDataset(const YAML::Node& node, DatasetSpec* dataset) {
    if (node.IsScalar()) return ReadKind(node, dataset);
    if (!node.IsMap()) return Error(node, "dataset: must be a name or a mapping");
    const auto length = [](double v) { return v == std::floor(v) && v >= 1 && v <= 1e8; };
    for (const auto& entry : node) {
      const std::string key = entry.first.Scalar();
      double value = 0;
      absl::Status status;
      if (key == "name") {
        status = ReadKind(entry.second, dataset);
      } else if (key == "path") {
        std::string path;
        status = Text(key, entry.second, &path);
        dataset->paths = {path};
      } else if (key == "input_len") {
        status = Number(key, entry.second, &value, length, "a length");
        dataset->input_len = static_cast<int32_t>(value);
      } else if (key == "output_len") {
        status = Number(key, entry.second, &value, length, "a length");
        dataset->output_len = static_cast<int32_t>(value);
      } else if (key == "range_ratio") {
        status = Number(
            key, entry.second, &dataset->range_ratio, [](double v) { return v >= 0 && v < 1; }, "in [0, 1)");
      } else {
        status = Error(entry.first,
                       UnknownName("dataset", key, {"name", "path", "input_len", "output_len", "range_ratio"})
                           .message());
      }
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ReadKind(const YAML::Node& node, DatasetSpec* dataset) {
    auto kind = ParseDatasetKind(node.Scalar());
    if (!kind.ok()) return Error(node, kind.status().message());
    // Files of the command line are for the dataset of the command line.
    if (*kind != dataset->kind) dataset->paths.clear();
    dataset->kind = *kind;
    return absl::OkStatus();
  }

  absl::Status Text(const std::string& key, const YAML::Node& node, std::string* out) {
    if (!node.IsScalar() || node.Scalar().empty()) return Error(node, absl::StrCat(key, ": must be a text"));
    *out = node.Scalar();
    return absl::OkStatus();
  }

  template <typename Allowed>
  absl::Status Number(const std::string& key, const YAML::Node& node, double* out, Allowed allowed,
                      absl::string_view what) {
    if (!node.IsScalar() || !YAML::convert<double>::decode(node, *out) || !std::isfinite(*out) ||
        !allowed(*out)) {
      return Error(node, absl::StrCat(key, ": must be ", what));
    }
    return absl::OkStatus();
  }

  const std::string path_;
  const TrafficClass& defaults_;
};

}  // namespace

absl::StatusOr<std::vector<TrafficClass>> LoadClasses(const std::string& path, const TrafficClass& defaults) {
  try {
    const YAML::Node document = YAML::LoadFile(path);
    ClassReader reader(path, defaults);
    if (!document.IsSequence() || document.size() == 0 || document.size() > kMaxClasses) {
      return reader.Error(document, absl::StrCat("must be a list of 1 to ", kMaxClasses, " classes"));
    }
    std::vector<TrafficClass> classes;
    std::set<std::string> names;
    size_t with_rate = 0;
    for (const YAML::Node& node : document) {
      auto one = reader.Read(node);
      if (!one.ok()) return one.status();
      if (!names.insert(one->name).second) {
        return reader.Error(node, absl::StrCat("name: '", one->name, "' is there twice"));
      }
      with_rate += one->rate.has_value();
      classes.push_back(*std::move(one));
    }
    if (with_rate != 0 && with_rate != classes.size()) {
      return reader.Error(document, "rate: give it to every class or to none");
    }
    return classes;
  } catch (const YAML::BadFile&) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
}

}  // namespace orrery::bench
