// What a broken or hostile client does to the connection itself: a typed error or a closed stream, and the
// server keeps serving the others.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

#include "gtest/gtest.h"
#include "scheduler/base/random.h"
#include "tests/server/raw_call.h"
#include "tests/server/raw_http2.h"
#include "tests/server/server_harness.h"

namespace orrery::testing {
namespace {

// A Generate call with these bytes as its message; the status it ends with.
grpc::Status RawGenerate(Harness& harness, const std::string& bytes) {
  return RawCall::Unary(harness.server().grpc_port(), "/orrery.v1.Inference/Generate", bytes);
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

// U+D800 and U+DC00 as three bytes each: half a character, which JSON can spell and UTF-8 cannot.
TEST_F(Protocol, LoneSurrogatesAreNoText) {
  for (const char* text : {"\xed\xa0\x80", "\xed\xb0\x80"}) {
    const grpc::Status status = RawGenerate(harness_, std::string("\x12\x03") + text);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  }
  ExpectStillServing();
}

TEST_F(Protocol, OddButWholeTextIsServed) {
  const std::string cases[] = {std::string(3, '\0'),  // NUL
                               "\xef\xbb\xbfx",       // a byte order mark
                               "\xe2\x80\xae"
                               "abc",                   // right to left
                               std::string(3000, ' '),  // nothing but spaces
                               std::string(3000, '\n'),
                               "{{ messages }}{% raw %}<|endoftext|></s>"};
  for (const std::string& text : cases) {
    const Answer answer = harness_.Generate(Harness::Request(text, 2));
    EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
    EXPECT_EQ(answer.prompt_tokens, text.size() + 1);
  }
}

// Above the limit, and still below what gRPC lets in.
TEST_F(Protocol, AMessageALittleTooLargeIsToldTheLimit) {
  const Answer answer = harness_.Generate(Harness::Request(std::string((4 << 20) + 100, 'x'), 1));
  EXPECT_EQ(answer.status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(answer.error().field(), "message");
  EXPECT_EQ(answer.error().limit(), "at most 4194304 bytes");
  EXPECT_TRUE(answer.retry.empty());
  EXPECT_EQ(harness_.Metric("orrery_requests_total", {{"outcome", "invalid"}}), 1);
  v1::TokenizeRequest tokenize;
  tokenize.set_text(std::string((4 << 20) + 100, 'x'));
  grpc::ClientContext context;
  v1::TokenizeResponse tokens;
  EXPECT_EQ(ErrorInfoOf(harness_.stub().Tokenize(&context, tokenize, &tokens))->field(), "message");
  ExpectStillServing();
}

// The largest message that is read: the field's own limit speaks.
TEST_F(Protocol, LargestMessageIsReadAndRefusedByField) {
  const Answer answer = harness_.Generate(Harness::Request(std::string((4 << 20) - 100, 'x'), 1));
  EXPECT_EQ(answer.status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(answer.error().field(), "text");
  ExpectStillServing();
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
  EXPECT_FALSE(RawCall::Unary(harness_.server().grpc_port(), "/orrery.v1.Inference/Nothing", "").ok());
  ExpectStillServing();
}

// What is below gRPC: frames. Each client has a connection of its own, and ends with it.

const std::string& GoodMessage() {
  static const std::string message = GrpcMessage(Harness::Request("x", 3).SerializeAsString());
  return message;
}

TEST_F(Protocol, OneByteAtATime) {
  RawHttp2 client(harness_.server().grpc_port());
  std::string bytes = GenerateHeaders(1).Bytes();
  for (size_t i = 0; i < GoodMessage().size(); ++i) {
    const uint8_t flags = i + 1 == GoodMessage().size() ? kEndStream : 0;
    bytes += Http2Frame{kData, flags, 1, GoodMessage().substr(i, 1)}.Bytes();
  }
  for (const char byte : bytes) ASSERT_TRUE(client.Send(std::string(1, byte)));
  EXPECT_TRUE(client.EndsWithStatus("0"));
  ExpectStillServing();
}

TEST_F(Protocol, HalfAMessageAndThenSilence) {
  {
    RawHttp2 client(harness_.server().grpc_port());
    client.Send(GenerateHeaders(1));
    client.Send(Http2Frame{kData, 0, 1, GoodMessage().substr(0, GoodMessage().size() / 2)});
    EXPECT_TRUE(harness_.Generate(Harness::Request("x", 3)).status.ok());
  }
  ExpectStillServing();
}

TEST_F(Protocol, ResetRightAfterTheHeadersManyTimes) {
  RawHttp2 client(harness_.server().grpc_port());
  const std::string code("\0\0\0\x08", 4);  // CANCEL
  for (uint32_t stream = 1; stream < 6001; stream += 2) {
    client.Send(GenerateHeaders(stream));
    if (stream % 4 == 1) client.Send(Http2Frame{kData, kEndStream, stream, GoodMessage()});
    if (!client.Send(Http2Frame{kReset, 0, stream, code})) break;
  }
  ExpectStillServing();
}

TEST_F(Protocol, PingFloodIsSentAway) {
  RawHttp2 client(harness_.server().grpc_port());
  const std::string ping = Http2Frame{kPing, 0, 0, std::string(8, 'p')}.Bytes();
  for (int i = 0; i < 10'000 && client.Send(ping); ++i) {
  }
  EXPECT_TRUE(client.EndsWithGoAway());
  ExpectStillServing();
}

TEST_F(Protocol, WrongContentType) {
  RawHttp2 client(harness_.server().grpc_port());
  client.Send(GenerateHeaders(1, "text/html"));
  client.Send(Http2Frame{kData, kEndStream, 1, "<html>"});
  EXPECT_FALSE(client.EndsWithStatus("0"));
  ExpectStillServing();
}

// 48 MiB of zeros in a message far below the limit.
TEST_F(Protocol, GzipBomb) {
  const std::string zeros(48 << 20, '\0');
  std::string packed(1 << 20, '\0');
  z_stream stream{};
  ASSERT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(zeros.data()));
  stream.avail_in = static_cast<uInt>(zeros.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  const std::string message = GrpcMessage(packed, /*compressed=*/true);
  RawHttp2 client(harness_.server().grpc_port());
  client.Send(GenerateHeaders(1, "application/grpc", {{"grpc-encoding", "gzip"}}));
  constexpr size_t kFrame = 16'384;  // the largest that the server has allowed
  for (size_t at = 0; at < message.size(); at += kFrame) {
    const bool last = at + kFrame >= message.size();
    client.Send(Http2Frame{kData, last ? kEndStream : uint8_t{0}, 1, message.substr(at, kFrame)});
  }
  EXPECT_FALSE(client.EndsWithStatus("0"));
  ExpectStillServing();
}

// Hundreds of connections, each with the first part of a large message and then silence: three times the
// memory that gRPC may take. Whoever speaks properly is served meanwhile. (What gRPC takes is not measured.)
TEST(MemoryQuota, HalfSentMessagesDoNotKeepTheOthersOut) {
  Harness::Setup setup;
  setup.config.grpc_memory.bytes = 4 << 20;
  Harness harness(setup);
  const std::string message = GrpcMessage(std::string(4 << 20, 'x'));
  std::vector<std::unique_ptr<RawHttp2>> clients;
  for (int i = 0; i < 256; ++i) {
    clients.push_back(std::make_unique<RawHttp2>(harness.server().grpc_port()));
    bool open = clients.back()->Send(GenerateHeaders(1));
    constexpr size_t kFrame = 16'384, kWindow = 65'535;  // what may be sent without leave
    for (size_t at = 0; at + kFrame <= kWindow && open; at += kFrame) {
      open = clients.back()->Send(Http2Frame{kData, 0, 1, message.substr(at, kFrame)});
    }
    // gRPC makes room at the expense of whoever it finds first: a call may have to be made again.
    if (i % 64 == 0) {
      EXPECT_TRUE(Eventually([&] { return harness.Generate(Harness::Request("x", 3)).status.ok(); })) << i;
    }
  }
  EXPECT_TRUE(Eventually([&] { return harness.Generate(Harness::Request("x", 3)).status.ok(); }));
  clients.clear();
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    v1::GetLoadResponse load;
    return harness.stub().GetLoad(&context, {}, &load).ok();
  }));
  EXPECT_TRUE(Eventually([&] { return harness.IsIdle(); }));
}

}  // namespace
}  // namespace orrery::testing
