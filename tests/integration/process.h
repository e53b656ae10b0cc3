// A child process with its output, for tests of the built binaries.
#ifndef ORRERY_TESTS_INTEGRATION_PROCESS_H_
#define ORRERY_TESTS_INTEGRATION_PROCESS_H_

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace orrery::testing {

inline std::string BinaryPath(const std::string& name) {
  const char* folder = std::getenv("ORRERY_BIN_DIR");
  return std::string(folder == nullptr ? "build/bin" : folder) + "/" + name;
}

// Starts a program with both outputs on one pipe, or with standard output alone.
class Process {
 public:
  Process(const std::string& program, std::vector<std::string> arguments, bool with_errors) {
    int ends[2];
    if (pipe(ends) != 0) return;
    arguments.insert(arguments.begin(), program);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(ends[1], STDOUT_FILENO);
      if (with_errors) dup2(ends[1], STDERR_FILENO);
      close(ends[0]);
      close(ends[1]);
      execv(program.c_str(), argv.data());
      _exit(127);
    }
    close(ends[1]);
    output_ = ends[0];
  }
  ~Process() {
    if (pid_ > 0) kill(pid_, SIGKILL), Wait();
    close(output_);
  }

  // Reads until `text` has come; false at the end of the output.
  bool ReadUntil(const std::string& text) {
    while (seen_.find(text) == std::string::npos) {
      char chunk[4096];
      const ssize_t count = read(output_, chunk, sizeof chunk);
      if (count <= 0) return false;
      seen_.append(chunk, static_cast<size_t>(count));
    }
    return true;
  }
  // Reads until there is anything; false at the end of the output.
  bool ReadAny() {
    char chunk[4096];
    const ssize_t count = seen_.empty() ? read(output_, chunk, sizeof chunk) : 0;
    if (count > 0) seen_.append(chunk, static_cast<size_t>(count));
    return !seen_.empty();
  }
  // All the output, then the exit code.
  int Finish() {
    ReadUntil(std::string("\0never", 6));
    return Wait();
  }
  void Signal(int number) const { kill(pid_, number); }
  const std::string& seen() const { return seen_; }

 private:
  int Wait() {
    int status = -1;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  pid_t pid_ = -1;
  int output_ = -1;
  std::string seen_;
};

struct RunResult {
  int exit_code = -1;
  std::string output;
};
inline RunResult RunProgram(const std::string& binary, const std::vector<std::string>& arguments,
                            bool with_errors = false) {
  Process process(BinaryPath(binary), arguments, with_errors);
  RunResult result;
  result.exit_code = process.Finish();
  result.output = process.seen();
  return result;
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_INTEGRATION_PROCESS_H_
