// NCCL on the machine: its functions by name where the library is, and one rank that sends to itself where
// there is a device, too.
#include "engine/cuda/nccl.h"

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace orrery::cuda {
namespace {

TEST(NcclTest, NamesResolveWithoutADriver) {
  const auto library = LoadNccl();
  if (!library.ok()) {
    ASSERT_EQ(library.status().message().substr(0, 11), "cannot load") << library.status();
    GTEST_SKIP() << library.status();
  }
  int version = 0;
  EXPECT_TRUE(NcclStatus(**library, (*library)->GetVersion(&version), "version").ok());
  EXPECT_EQ(version / 10000, NCCL_MAJOR);
}

TEST(NcclTest, ErrorsAreTyped) {
  const auto library = LoadNccl();
  if (!library.ok()) GTEST_SKIP() << library.status();
  const Nccl& nccl = **library;
  EXPECT_TRUE(NcclStatus(nccl, ncclSuccess, "send").ok());
  EXPECT_EQ(NcclStatus(nccl, ncclInvalidArgument, "send").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(NcclStatus(nccl, ncclRemoteError, "send").code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(NcclStatus(nccl, ncclUnhandledCudaError, "send").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(NcclStatus(nccl, ncclInvalidUsage, "send").message().substr(0, 11), "NCCL send: ");
  // The library's own complaint, of a communicator that is not there.
  EXPECT_EQ(NcclStatus(nccl, nccl.AllReduce(nullptr, nullptr, 1, ncclFloat, ncclSum, nullptr, nullptr), "sum")
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(NcclTest, OneRankSendsToItselfAndSumsAlone) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
  const auto library = LoadNccl();
  if (!library.ok()) GTEST_SKIP() << library.status();
  const Nccl& nccl = **library;
  const auto check = [&nccl](ncclResult_t result, const char* what) {
    const absl::Status status = NcclStatus(nccl, result, what);
    EXPECT_TRUE(status.ok()) << status;
    return status.ok();
  };

  ncclUniqueId id;
  ASSERT_TRUE(check(nccl.GetUniqueId(&id), "id"));
  ncclComm_t comm = nullptr;
  ASSERT_TRUE(check(nccl.CommInitRank(&comm, 1, id, 0), "init"));
  constexpr size_t kCount = 1 << 20;
  std::vector<float> sent(kCount), received(kCount), summed(kCount);
  std::iota(sent.begin(), sent.end(), 0.0f);
  float* memory = nullptr;  // [3][kCount]: sent, received, summed
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, 3 * kCount * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMemset(memory, 0, 3 * kCount * sizeof(float)), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(memory, sent.data(), kCount * sizeof(float), cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  EXPECT_TRUE(check(nccl.GroupStart(), "group"));
  EXPECT_TRUE(check(nccl.Send(memory, kCount, ncclFloat, 0, comm, stream), "send"));
  EXPECT_TRUE(check(nccl.Recv(memory + kCount, kCount, ncclFloat, 0, comm, stream), "receive"));
  EXPECT_TRUE(check(nccl.GroupEnd(), "group"));
  EXPECT_TRUE(check(
      nccl.AllReduce(memory + kCount, memory + 2 * kCount, kCount, ncclFloat, ncclSum, comm, stream), "sum"));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  ncclResult_t later = ncclSuccess;
  EXPECT_TRUE(check(nccl.CommGetAsyncError(comm, &later), "state") && check(later, "later"));

  EXPECT_EQ(cudaMemcpy(received.data(), memory + kCount, kCount * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(cudaMemcpy(summed.data(), memory + 2 * kCount, kCount * sizeof(float), cudaMemcpyDeviceToHost),
            cudaSuccess);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(summed, sent);
  EXPECT_TRUE(check(nccl.CommDestroy(comm), "destroy"));
  cudaStreamDestroy(stream);
  cudaFree(memory);
}

}  // namespace
}  // namespace orrery::cuda
