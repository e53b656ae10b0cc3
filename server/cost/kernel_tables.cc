#include "server/cost/kernel_tables.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>
#include <system_error>

#include "scheduler/base/options.h"
#include "scheduler/base/text.h"
#include "server/cost/csv_rows.h"
#include "server/traces/read_file.h"

namespace orrery {
namespace {

constexpr size_t kMaxTableBytes = size_t{64} << 20;

struct TableFile {
  std::string gpu, release, table, path;  // release: FRAMEWORK-VERSION
  std::vector<int64_t> version;
};

// Nothing when the name is not of this form.
bool ReadFileName(const std::filesystem::path& path, TableFile* file) {
  std::string name = path.filename().string();
  for (const std::string_view packed : {".xz", ".gz"}) {
    if (name.ends_with(packed)) name.resize(name.size() - packed.size());
  }
  if (!name.ends_with(".csv")) return false;
  name.resize(name.size() - 4);
  const size_t first = name.find('_');
  const size_t second = first == std::string::npos ? first : name.find('_', first + 1);
  if (second == std::string::npos) return false;
  file->gpu = name.substr(0, first);
  file->release = name.substr(first + 1, second - first - 1);
  file->table = name.substr(second + 1);
  file->path = path.string();
  file->version.clear();
  const std::string_view release = file->release;
  for (const std::string_view part : Split(release.substr(release.rfind('-') + 1), '.')) {
    file->version.push_back(ParseNumber<int64_t>(part).value_or(0));
  }
  return true;
}

// Why no row was of interest: the first filter whose text no row has, or all of them.
absl::Status NothingLeft(const std::string& path, const std::vector<KernelFilter>& filters,
                         const std::vector<std::set<std::string, std::less<>>>& seen) {
  std::string all;
  for (size_t i = 0; i < filters.size(); ++i) {
    const KernelFilter& filter = filters[i];
    if (seen[i].count(filter.wanted) == 0) {
      return UnknownName(Cat(filter.column, " of ", path), filter.wanted,
                         std::vector<std::string_view>(seen[i].begin(), seen[i].end()));
    }
    all += Cat(i > 0 ? ", " : "", filter.column, " ", filter.wanted);
  }
  return absl::InvalidArgumentError(Cat(path, ": nothing was measured at ", all));
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> FindKernelTables(const std::string& folder,
                                                                    const std::string& gpu) {
  std::vector<TableFile> files;
  std::set<std::string> gpus;
  std::error_code error;
  TableFile file;
  const TableFile* best = nullptr;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (!ReadFileName(at->path(), &file)) continue;
    gpus.insert(file.gpu);
    if (file.gpu == gpu) files.push_back(file);
  }
  if (error) return absl::InvalidArgumentError(Cat(folder, ": ", error.message()));
  // A folder is listed in any order: of equal versions the last by name is taken.
  std::sort(files.begin(), files.end(),
            [](const TableFile& a, const TableFile& b) { return a.path < b.path; });
  for (const TableFile& candidate : files) {
    if (candidate.table == "gemm" && (best == nullptr || best->version <= candidate.version))
      best = &candidate;
  }
  if (best == nullptr) {
    return UnknownName(Cat("GPU of ", folder), gpu, std::vector<std::string_view>(gpus.begin(), gpus.end()));
  }
  std::map<std::string, std::string> paths;
  for (const TableFile& candidate : files) {
    if (candidate.release == best->release) paths[candidate.table] = candidate.path;
  }
  return paths;
}

absl::StatusOr<KernelTimes> ReadKernelTimes(const std::string& path, const std::vector<KernelFilter>& filters,
                                            const std::vector<std::string_view>& keys) {
  const auto text = ReadWholeFile(path, kMaxTableBytes);
  if (!text.ok()) return absl::InvalidArgumentError(text.status().message());
  std::vector<std::string_view> columns = keys;
  columns.push_back("latency");
  for (const KernelFilter& filter : filters) columns.push_back(filter.column);
  auto rows = CsvRows::Open(path, *text, columns);
  if (!rows.ok()) return rows.status();
  KernelTimes times;
  std::vector<std::set<std::string, std::less<>>> seen(filters.size());
  for (;;) {
    const auto more = rows->Next();
    if (!more.ok()) return more.status();
    if (!*more) break;
    std::array<double, 3> key{};
    double ms = 0;
    for (size_t i = 0; i <= keys.size(); ++i) {
      absl::Status status = rows->Numbers({{i, i < keys.size() ? &key[i] : &ms}});
      if (!status.ok()) return status;
    }
    bool wanted = true;
    for (size_t i = 0; i < filters.size(); ++i) {
      const size_t column = keys.size() + 1 + i;
      const std::string_view value = rows->Has(column) ? rows->Text(column) : filters[i].wanted;
      if (seen[i].find(value) == seen[i].end()) seen[i].emplace(value);
      wanted = wanted && value == filters[i].wanted;
    }
    if (!wanted) continue;
    const auto [at, is_new] = times.try_emplace(key, ms);
    if (!is_new) at->second = std::min(at->second, ms);
  }
  if (times.empty()) return NothingLeft(path, filters, seen);
  return times;
}

}  // namespace orrery
