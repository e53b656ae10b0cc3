#include "router/outliers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "scheduler/base/random.h"

namespace orrery {
namespace {

// Workers whose steps take 5 ms, 0.2 ms for each decode and 0.05 ms for each prompt token, times a factor of
// the worker and some noise.
class OutliersTest : public ::testing::Test {
 protected:
  void Start(size_t workers, const OutlierOptions& options = {}, uint64_t peers = 1) {
    outliers_ = std::make_unique<Outliers>(options);
    factor_.assign(workers, 1);
    most_decodes_.assign(workers, 60);
    for (uint32_t i = 0; i < workers; ++i) outliers_->Insert(i, Info(i, peers), now_);
  }
  static WorkerInfo Info(uint32_t worker, uint64_t peers) {
    return {.worker = WorkerId{worker}, .kv_capacity_tokens = 1000, .max_context = 100, .peers = peers};
  }
  void Step(size_t worker) {
    StepShape shape;
    const uint64_t decodes = random_.Below(1 + most_decodes_[worker]);
    for (uint64_t i = 0; i < decodes; ++i) shape.AddDecode(100);
    if (decodes == 0 || random_.Below(4) == 0) shape.AddChunk(0, 1 + static_cast<int>(random_.Below(512)));
    const double noise = std::exp((random_.Uniform() - 0.5) * noise_);
    const double ms = (5 + 0.2 * shape.decodes + 0.05 * shape.prefill_tokens) * factor_[worker] * noise;
    now_ = now_ + Duration::Milliseconds(1);
    if (outliers_->OnStep(worker, shape, Duration::Seconds(ms * 1e-3), now_)) outliers_->Update(now_);
    if (outliers_->NextWake() <= now_) outliers_->Update(now_);
  }
  void Steps(int turns) {
    for (int i = 0; i < turns; ++i) {
      for (size_t w = 0; w < factor_.size(); ++w) Step(w);
    }
  }
  int NumOut() const {
    int out = 0;
    for (size_t w = 0; w < factor_.size(); ++w) out += outliers_->out(w);
    return out;
  }
  // One by one, until the rule speaks.
  bool Fail(size_t worker, int times) {
    for (int i = 0; i < times; ++i) {
      now_ = now_ + Duration::Milliseconds(1);
      if (!outliers_->OnFailure(worker, RequestId{++requests_}, now_, now_)) continue;
      outliers_->Update(now_);
      return true;
    }
    return false;
  }

  std::unique_ptr<Outliers> outliers_;
  std::vector<double> factor_;
  std::vector<uint64_t> most_decodes_;
  double noise_ = 0.5;
  RandomStream random_{7};
  uint64_t requests_ = 0;
  Time now_;
};

TEST_F(OutliersTest, AWorkerThatBecomesSlowIsOut) {
  Start(8);
  Steps(100);
  EXPECT_EQ(outliers_->ejections(), 0u);
  factor_[5] = 3;
  Steps(60);
  EXPECT_TRUE(outliers_->out(5));
  EXPECT_EQ(NumOut(), 1);
}

TEST_F(OutliersTest, SoIsOneThatAlwaysWas) {
  Start(3);
  factor_[1] = 2.6;
  Steps(120);
  EXPECT_TRUE(outliers_->out(1));
  EXPECT_EQ(NumOut(), 1);
}

TEST_F(OutliersTest, LoadIsNotSlowness) {
  Start(4);
  most_decodes_ = {400, 20, 5, 0};
  noise_ = 1;  // factors up to e between two steps
  Steps(4000);
  EXPECT_EQ(outliers_->ejections(), 0u);
}

// Its steps are larger than all that is known of the others, and take more than in proportion.
TEST_F(OutliersTest, WhatNoOtherWorkerDoesIsNotCompared) {
  Start(4);
  Steps(200);
  for (int i = 0; i < 1000; ++i) {
    StepShape shape;
    shape.AddChunk(0, 4096);
    EXPECT_FALSE(outliers_->OnStep(0, shape, Duration::Seconds(5), now_));
  }
}

TEST_F(OutliersTest, OnlyPeersAreCompared) {
  Start(6, {}, 0);
  factor_[0] = 8;
  Steps(500);
  EXPECT_EQ(outliers_->ejections(), 0u) << "they say nothing of themselves";
  Start(0);
  for (uint32_t i = 0; i < 8; ++i) outliers_->Insert(i, Info(i, 1 + i / 4), now_);
  factor_ = {1, 1, 1, 1, 6, 6, 6, 6};
  most_decodes_.assign(8, 60);
  Steps(500);
  EXPECT_EQ(outliers_->ejections(), 0u) << "other machines";
  factor_[6] = 18;
  Steps(100);
  EXPECT_TRUE(outliers_->out(6));
  EXPECT_EQ(NumOut(), 1);
}

// Two of a kind are too few to tell who is right, and half of many are no exception.
TEST_F(OutliersTest, NobodyIsOutWhereThereIsNoRule) {
  Start(2);
  factor_[1] = 5;
  Steps(500);
  EXPECT_EQ(outliers_->ejections(), 0u);
  Start(8);
  factor_ = {1, 1, 1, 1, 2.5, 2.5, 2.5, 2.5};
  Steps(500);
  EXPECT_EQ(outliers_->ejections(), 0u);
}

TEST_F(OutliersTest, TimesOutDoubleAndAreForgotten) {
  const OutlierOptions rule;
  Start(4);
  int64_t expected = rule.first.ns;
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(Fail(2, rule.failures));
    EXPECT_EQ((outliers_->NextWake() - now_).ns, expected);
    EXPECT_FALSE(Fail(2, rule.failures)) << "it is out already";
    now_ = outliers_->NextWake();
    outliers_->Update(now_);
    EXPECT_EQ(NumOut(), 0);
    EXPECT_TRUE(outliers_->NextWake().is_never());
    expected = std::min(2 * expected, rule.most.ns);
  }
  now_ = now_ + Duration{rule.most.ns * 6};
  ASSERT_TRUE(Fail(2, rule.failures));
  EXPECT_EQ((outliers_->NextWake() - now_).ns, rule.first.ns * 4) << "two of eight are left";
}

TEST_F(OutliersTest, FailuresCountInARow) {
  const OutlierOptions rule;
  Start(4);
  EXPECT_FALSE(Fail(0, rule.failures - 1));
  outliers_->OnToken(0);
  EXPECT_FALSE(Fail(0, rule.failures - 1));
  outliers_->OnToken(0);
  for (uint64_t i = 0; i < 20; ++i) {
    EXPECT_FALSE(outliers_->OnFailure(0, RequestId{100 + i}, now_, now_)) << "one step that failed";
  }
  outliers_->OnToken(0);
  for (int i = 0; i < 20; ++i) {
    now_ = now_ + Duration::Milliseconds(1);
    EXPECT_FALSE(outliers_->OnFailure(0, RequestId{7}, now_, now_)) << "samples of one request";
  }
  EXPECT_EQ(outliers_->ejections(), 0u);
}

TEST_F(OutliersTest, WereMoreThanHalfToBeOutNobodyIs) {
  const OutlierOptions rule;
  Start(4);
  ASSERT_TRUE(Fail(0, rule.failures));
  ASSERT_TRUE(Fail(1, rule.failures));
  EXPECT_EQ(NumOut(), 2);
  ASSERT_TRUE(Fail(2, rule.failures));
  EXPECT_EQ(NumOut(), 0);
  now_ = outliers_->NextWake();
  outliers_->Update(now_);
  EXPECT_EQ(NumOut(), 2) << "the first came back";
  outliers_->SetDraining(3, true);
  outliers_->Update(now_);
  EXPECT_EQ(NumOut(), 0) << "two of three";
  outliers_->SetDraining(3, false);
  outliers_->Erase(1);
  factor_.pop_back();
  outliers_->Update(now_);
  EXPECT_EQ(NumOut(), 1) << "one of three";
  EXPECT_TRUE(outliers_->out(1)) << "who was the third";
}

TEST_F(OutliersTest, WhoAloneCanHoldWhatItHoldsStays) {
  const OutlierOptions rule;
  Start(3);
  WorkerInfo large = Info(3, 1);
  large.max_context = 1000;
  outliers_->Insert(3, large, now_);
  factor_.push_back(1);
  ASSERT_TRUE(Fail(3, rule.failures));
  EXPECT_EQ(NumOut(), 0);
  large.worker = WorkerId{4};
  outliers_->Insert(4, large, now_);
  factor_.push_back(1);
  outliers_->Update(now_);
  EXPECT_TRUE(outliers_->out(3));
  ASSERT_TRUE(Fail(4, rule.failures));
  EXPECT_EQ(NumOut(), 1) << "one of the two";
}

}  // namespace
}  // namespace orrery
