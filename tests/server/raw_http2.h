// An HTTP/2 client that sends what no proper one would: frames as bytes, in any order and any pieces (RFC
// 9113).
#ifndef ORRERY_TESTS_SERVER_RAW_HTTP2_H_
#define ORRERY_TESTS_SERVER_RAW_HTTP2_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace orrery::testing {

enum FrameType : uint8_t { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kGoAway = 7 };
constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

struct Http2Frame {
  uint8_t type = 0, flags = 0;
  uint32_t stream = 0;
  std::string payload;

  std::string Bytes() const {
    std::string bytes;
    for (int shift = 16; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(payload.size() >> shift));
    bytes.push_back(static_cast<char>(type));
    bytes.push_back(static_cast<char>(flags));
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(stream >> shift));
    return bytes + payload;
  }
};

// Headers of a Generate call: literal fields without indexing and without Huffman codes (RFC 7541, 6.2.2).
inline Http2Frame GenerateHeaders(uint32_t stream, const std::string& content_type = "application/grpc",
                                  const std::vector<std::pair<std::string, std::string>>& more = {}) {
  std::vector<std::pair<std::string, std::string>> fields = {{":method", "POST"},
                                                             {":scheme", "http"},
                                                             {":path", "/orrery.v1.Inference/Generate"},
                                                             {":authority", "test"},
                                                             {"content-type", content_type},
                                                             {"te", "trailers"}};
  fields.insert(fields.end(), more.begin(), more.end());
  Http2Frame frame{kHeaders, kEndHeaders, stream, ""};
  for (const auto& [name, value] : fields) {  // each below 127 bytes: one byte of length
    frame.payload.push_back(0);
    frame.payload += static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
  }
  return frame;
}

// A message with gRPC's five bytes before it.
inline std::string GrpcMessage(const std::string& message, bool compressed = false) {
  std::string bytes(1, static_cast<char>(compressed));
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(message.size() >> shift));
  return bytes + message;
}

class RawHttp2 {
 public:
  // Connects and says hello.
  explicit RawHttp2(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int one = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const timeval patience{.tv_sec = 60, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return;
    Send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    Send(Http2Frame{kSettings, 0, 0, ""});
  }
  ~RawHttp2() { close(fd_); }
  RawHttp2(const RawHttp2&) = delete;
  RawHttp2& operator=(const RawHttp2&) = delete;

  // False once the server has closed the connection.
  bool Send(const std::string& bytes) {
    for (size_t sent = 0; sent < bytes.size();) {
      const ssize_t count = send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return false;
      sent += static_cast<size_t>(count);
    }
    return true;
  }
  bool Send(const Http2Frame& frame) { return Send(frame.Bytes()); }

  // Nothing when the connection is closed, or silent for longer than the tests' patience.
  std::optional<Http2Frame> Read() {
    const std::string head = ReadBytes(9);
    if (head.size() < 9) return std::nullopt;
    const auto at = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(head[i])); };
    Http2Frame frame;
    const size_t size = at(0) << 16 | at(1) << 8 | at(2);
    frame.type = static_cast<uint8_t>(head[3]);
    frame.flags = static_cast<uint8_t>(head[4]);
    frame.stream = at(5) << 24 | at(6) << 16 | at(7) << 8 | at(8);
    frame.payload = ReadBytes(size);
    return frame;
  }
  // Reads until the server ends the stream or the connection. True if the call's status is `code`: gRPC's
  // first answer of a connection spells its trailers out.
  bool EndsWithStatus(const std::string& code) {
    const std::string field = std::string("\x0bgrpc-status") + static_cast<char>(code.size()) + code;
    while (const auto frame = Read()) {
      if (frame->type == kReset || frame->type == kGoAway) return false;
      if (frame->type == kHeaders && (frame->flags & kEndStream)) {
        return frame->payload.find(field) != std::string::npos;
      }
    }
    return false;
  }
  // Reads until the server says that it closes the connection, or does so: what it said last is lost when it
  // closes before it has read all that was sent. False when it does neither.
  bool EndsWithGoAway() {
    while (const auto frame = Read()) {
      if (frame->type == kGoAway) return true;
    }
    return closed_;
  }

 private:
  std::string ReadBytes(size_t size) {
    std::string bytes(size, '\0');
    size_t have = 0;
    while (have < size) {
      const ssize_t count = recv(fd_, bytes.data() + have, size - have, 0);
      if (count <= 0) {
        closed_ = count == 0 || errno == ECONNRESET;
        break;
      }
      have += static_cast<size_t>(count);
    }
    bytes.resize(have);
    return bytes;
  }

  const int fd_;
  bool closed_ = false;
};

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_RAW_HTTP2_H_
