// What a broken or hostile client does to the connection itself: a typed error or a closed stream, and the
// server keeps serving the others.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "scheduler/base/random.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

// A Generate call with these bytes as its message; the status it ends with.
grpc::Status RawGenerate(Harness& harness, const std::string& bytes) {
  auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", harness.server().grpc_port()),
                                     grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/orrery.v1.Inference/Generate",
                                    grpc::ByteBuffer(std::make_unique<grpc::Slice>(bytes).get(), 1), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, reinterpret_cast<void*>(1));
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  return status;
}

void SendRaw(int port, const std::string& bytes) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) {
    (void)send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  close(fd);
}

class Protocol : public ::testing::Test {
 protected:
  void ExpectStillServing() {
    EXPECT_TRUE(harness_.Generate(Harness::Request("x", 3)).status.ok());
    EXPECT_TRUE(Eventually([&] { return harness_.IsIdle(); }));
  }
  Harness harness_;
};

TEST_F(Protocol, TextThatIsNotUtf8NamesItsField) {
  const grpc::Status status = RawGenerate(harness_, std::string("\x12\x02\xff\xfe", 4));  // field 2, text
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  ASSERT_TRUE(ErrorInfoOf(status).has_value());
  EXPECT_EQ(ErrorInfoOf(status)->field(), "text");
  ExpectStillServing();
}

TEST_F(Protocol, BytesThatAreNoMessage) {
  const grpc::Status status = RawGenerate(harness_, "\xff\xff\xff\xff");
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(ErrorInfoOf(status)->field(), "message");
  ExpectStillServing();
}

TEST_F(Protocol, UnknownFieldsAreIgnored) {
  v1::GenerateRequest request = Harness::Request("x", 1);
  request.GetReflection()->MutableUnknownFields(&request)->AddVarint(9999, 7);
  EXPECT_TRUE(harness_.Generate(request).status.ok());
}

TEST_F(Protocol, OversizeMessage) {
  const Answer answer = harness_.Generate(Harness::Request(std::string(8 << 20, 'x'), 1));
  EXPECT_EQ(answer.status.error_code(), grpc::RESOURCE_EXHAUSTED);
  ExpectStillServing();
}

// gRPC answers a header block over the limit with RESOURCE_EXHAUSTED and then closes the whole connection,
// since the header compression state of both ends no longer agrees: that client's next call may find the
// socket closed (UNAVAILABLE) until it has connected again. The others, with connections of their own, notice
// nothing.
TEST_F(Protocol, OversizeMetadata) {
  ExpectStillServing();  // the harness is connected before the abuse
  const auto abuser = harness_.NewStub();
  grpc::ClientContext context;
  for (int i = 0; i < 64; ++i) context.AddMetadata(absl::StrCat("key", i), std::string(1024, 'v'));
  auto reader = abuser->Generate(&context, Harness::Request("x", 1));
  v1::GenerateResponse message;
  while (reader->Read(&message)) ADD_FAILURE() << "answered: " << message.ShortDebugString();
  EXPECT_FALSE(reader->Finish().ok());
  ExpectStillServing();
}

TEST_F(Protocol, GarbageOnThePort) {
  RandomStream random(5);
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  for (int i = 0; i < 50; ++i) {
    std::string bytes(random.Below(2000), '\0');
    for (char& c : bytes) c = static_cast<char>(random.Below(256));
    SendRaw(harness_.server().grpc_port(), i % 2 == 0 ? bytes : preface + bytes);
  }
  SendRaw(harness_.server().grpc_port(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  ExpectStillServing();
}

TEST_F(Protocol, UnknownMethod) {
  auto channel = grpc::CreateChannel(absl::StrCat("127.0.0.1:", harness_.server().grpc_port()),
                                     grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto call = stub.PrepareUnaryCall(&context, "/orrery.v1.Inference/Nothing", grpc::ByteBuffer(), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, reinterpret_cast<void*>(1));
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  EXPECT_FALSE(status.ok());
  ExpectStillServing();
}

}  // namespace
}  // namespace orrery::testing
