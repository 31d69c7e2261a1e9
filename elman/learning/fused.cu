// Clipping and NAdam over all parameters at once: see fused.py, which packs the structs.
#include "device.cuh"

namespace elman {

constexpr int MOST = 48;

// What the calling thread works on: each kernel's threads go through a tensor side by side.
ELMAN_INLINE long long first_place() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
ELMAN_INLINE long long stride() { return (long long)gridDim.x * blockDim.x; }

// The sum over a block's threads, in the same order at every call; all of them get it.
ELMAN_INLINE double block_sum(double x) {
  double* parts = reinterpret_cast<double*>(shared_memory());
  for (int lanes = 16; lanes; lanes /= 2) x += shuffle_xor(x, lanes);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  block_barrier();
  double sum = 0;
  for (unsigned k = 0; k < blockDim.x / 32; ++k) sum += parts[k];
  return sum;
}

struct Gradients {
  struct { float* at; long long size; } of[MOST];
  long long count;
  double* squares;  // a sum for each block of the launch; in scale, of all launches
  long long parts;  // how many sums there are in all
  double* norm;
  double threshold;
};

extern "C" __global__ void __launch_bounds__(512, 2) squares(const Gradients given) {
  double sum = 0;
  for (int k = 0; k < given.count; ++k) {
    const float* gradient = given.of[k].at;
    const long long size = given.of[k].size;
    for (long long i = first_place(); i < size; i += stride()) {
      const double x = gradient[i];
      sum += x * x;
    }
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) given.squares[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(512, 2) scale(const Gradients given) {
  double sum = 0;
  for (long long i = threadIdx.x; i < given.parts; i += blockDim.x) sum += given.squares[i];
  const double norm = ::sqrt(block_sum(sum));
  if (first_place() == 0) *given.norm = norm;
  if (!(norm > given.threshold && norm <= 1.7976931348623157e308)) return;
  const float factor = (float)(given.threshold / norm);
  for (int k = 0; k < given.count; ++k) {
    float* gradient = given.of[k].at;
    const long long size = given.of[k].size;
    for (long long i = first_place(); i < size; i += stride()) gradient[i] *= factor;
  }
}

struct Moments {
  struct {
    float* weight;
    const float* gradient;
    float* mean;
    float* square;
    float* product;  // Π μ_i
    float* steps;
    long long size;
    double decay;
  } of[MOST];
  long long count;
  float* factors;  // three of each parameter: of g, of m, and the correction of √v
  const float* rate;  // on the device, or null
  double known_rate;
  double beta1, beta2, epsilon, momentum_decay;
};

extern "C" __global__ void __launch_bounds__(64) count(const Moments given) {
  const int k = threadIdx.x;
  if (k >= given.count) return;
  const float t = *given.of[k].steps + 1;
  *given.of[k].steps = t;
  const double now = given.beta1 * (1 - 0.5 * ::pow(0.96, t * given.momentum_decay));
  const double next = given.beta1 * (1 - 0.5 * ::pow(0.96, (t + 1) * given.momentum_decay));
  const float product = *given.of[k].product * (float)now;
  *given.of[k].product = product;
  const double rate = given.rate ? (double)*given.rate : given.known_rate;
  given.factors[3 * k] = (float)(rate * (1 - now) / (1 - (double)product));
  given.factors[3 * k + 1] = (float)(rate * next / (1 - (double)product * next));
  given.factors[3 * k + 2] = (float)::sqrt(1 - ::pow(given.beta2, (double)t));
}

extern "C" __global__ void __launch_bounds__(512, 2) nadam(const Moments given) {
  const float keep = (float)given.beta2, add = (float)(1 - given.beta2);
  const float share = (float)(1 - given.beta1), epsilon = (float)given.epsilon;
  for (int k = 0; k < given.count; ++k) {
    float* weight = given.of[k].weight;
    const float* gradient = given.of[k].gradient;
    float *mean = given.of[k].mean, *square = given.of[k].square;
    const float decay = (float)given.of[k].decay;
    const float of_gradient = given.factors[3 * k], of_mean = given.factors[3 * k + 1];
    const float correction = given.factors[3 * k + 2];
    const long long size = given.of[k].size;
    for (long long i = first_place(); i < size; i += stride()) {
      const float w = weight[i], g = decay ? gradient[i] + decay * w : gradient[i];
      const float m = mean[i] + share * (g - mean[i]), v = keep * square[i] + add * g * g;
      mean[i] = m;
      square[i] = v;
      weight[i] = w - (of_gradient * g + of_mean * m) / (::sqrtf(v) / correction + epsilon);
    }
  }
}

}  // namespace elman
