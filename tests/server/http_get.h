// One HTTP request to a port of this machine, and the whole answer.
#ifndef ORRERY_TESTS_SERVER_HTTP_GET_H_
#define ORRERY_TESTS_SERVER_HTTP_GET_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace orrery::testing {

inline std::string Http(int port, const std::string& request) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
      send(fd, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    char chunk[4096];
    for (ssize_t n = 0; (n = recv(fd, chunk, sizeof chunk, 0)) > 0;)
      answer.append(chunk, static_cast<size_t>(n));
  }
  close(fd);
  return answer;
}

inline std::string Get(int port, const std::string& path) {
  return Http(port, "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
}

}  // namespace orrery::testing

#endif  // ORRERY_TESTS_SERVER_HTTP_GET_H_
