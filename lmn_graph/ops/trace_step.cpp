// One time step of the traces of filter cells and the gradient that they give: see lmn_graph/learning/_traces.py, whose formulas these are.
//
// Traces [R, B]: E of weights, P of input weights, N of time constants and N of biases (always 1), each about the cell of the parameter
// itself; then those about other cells, by rank, each fed by rows above it.
#include <torch/csrc/inductor/cpp_prefix.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

template <typename scalar>
struct Step {
  int64_t E, P, N, R, B, ranks, kinds;
  const int64_t *source, *target, *port, *node, *parameter, *pair, *kind, *bound;
  const int32_t *rowptr, *col;
  const scalar *feed, *keep, *c, *sensitivity;
  double leak, subtraction, trace_noise;
  const scalar *noise, *before, *y, *x, *heard, *sent, *read;
  scalar *value, *passed, *gradient;

  void self(int64_t r, scalar take, const scalar* in) const {
    scalar* row = value + r * B;
    const scalar stay = keep[r];
#pragma omp simd
    for (int64_t b = 0; b < B; ++b) row[b] = stay * row[b] + take * in[b];
  }

  void give(int64_t r) const {
    const scalar *row = value + r * B, *out = y + node[r] * B;
    scalar* into = passed + r * B;
#pragma omp simd
    for (int64_t b = 0; b < B; ++b) into[b] = (1 - out[b] * out[b]) * row[b];
  }

  void own() const {
    std::vector<scalar> difference(B);
    for (int64_t e = 0; e < E; ++e) self(e, c[target[e]], y + source[e] * B);
    for (int64_t p = 0; p < P; ++p) self(E + p, c[port[p]], x + p * B);
    for (int64_t i = 0; i < N; ++i) {
      for (int64_t b = 0; b < B; ++b) difference[b] = before[i * B + b] - heard[i * B + b];
      self(E + P + i, sensitivity[i], difference.data());
    }
    for (int64_t r = 0; r < E + P + 2 * N; ++r) {
      give(r);
      if (gradient == nullptr) continue;
      const scalar *message = sent + node[r] * B, *given = passed + r * B;
      scalar sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t b = 0; b < B; ++b) sum += message[b] * given[b];
      gradient[r] += sum;
    }
  }

  // past: what is read of a trace besides what came in now
  void learn(int64_t r, const scalar* past) const {
    const int64_t own = E + P + 2 * N;
    const scalar *message = read + pair[r - own] * B, *out = y + node[r] * B;
    scalar sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t b = 0; b < B; ++b) sum += message[b] * (1 - out[b] * out[b]) * past[b];
    gradient[parameter[r]] += sum;
  }

  void come(int64_t r, scalar* now) const {
    const int64_t at = r - (E + P + 2 * N);
    std::fill(now, now + B, scalar(0));
    for (int32_t k = rowptr[at]; k < rowptr[at + 1]; ++k) {
      const scalar factor = feed[k], *from = passed + static_cast<int64_t>(col[k]) * B;
#pragma omp simd
      for (int64_t b = 0; b < B; ++b) now[b] += factor * from[b];
    }
  }

  void others() const {
    std::vector<scalar> now(B), past(B);
    for (int64_t r = E + P + 2 * N; r < R; ++r) {
      come(r, now.data());
      scalar* row = value + r * B;
      const scalar stay = keep[r] * scalar(1 - leak);
      for (int64_t b = 0; b < B; ++b) {
        const scalar kept = stay * row[b];
        row[b] = kept + now[b];
        past[b] = subtraction == 0 ? kept : scalar(1 + subtraction) * row[b] - now[b];
      }
      give(r);
      if (gradient != nullptr) learn(r, past.data());
    }
  }

  void others_with_noise() const {
    std::vector<scalar> now(B), level(kinds * B), past(B);
    std::vector<int64_t> count(kinds);
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const int64_t first = bound[rank], last = bound[rank + 1];
      std::fill(level.begin(), level.end(), scalar(0));
      std::fill(count.begin(), count.end(), 0);
      for (int64_t r = first; r < last; ++r) {
        come(r, now.data());
        scalar *row = value + r * B, *sums = level.data() + kind[r] * B;
        const scalar stay = keep[r] * scalar(1 - leak);
        for (int64_t b = 0; b < B; ++b) {
          row[b] = stay * row[b] + now[b];
          sums[b] += row[b] * row[b];
        }
        ++count[kind[r]];
      }
      for (int64_t k = 0; k < kinds; ++k)
        for (int64_t b = 0; b < B; ++b) level[k * B + b] = count[k] ? std::sqrt(level[k * B + b] / count[k]) : scalar(0);
      for (int64_t r = first; r < last; ++r) {
        come(r, now.data());
        scalar* row = value + r * B;
        const scalar *drawn = noise + (r - (E + P + 2 * N)) * B, *scale = level.data() + kind[r] * B;
        for (int64_t b = 0; b < B; ++b) {
          row[b] += scalar(trace_noise) * scale[b] * drawn[b];
          past[b] = scalar(1 + subtraction) * row[b] - now[b];
        }
        if (gradient != nullptr) learn(r, past.data());
      }
      for (int64_t r = first; r < last; ++r) give(r);
    }
  }

  void run() const {
    own();
    noise == nullptr ? others() : others_with_noise();
  }
};

}  // namespace

#define EXPORT(scalar)                                                                                                                    \
  extern "C" void step_##scalar(                                                                                                          \
      int64_t E, int64_t P, int64_t N, int64_t R, int64_t B, int64_t ranks, int64_t kinds, const int64_t* source, const int64_t* target, \
      const int64_t* port, const int64_t* node, const int64_t* parameter, const int64_t* pair, const int64_t* kind, const int64_t* bound, \
      const int32_t* rowptr, const int32_t* col, const scalar* feed, const scalar* keep, const scalar* c, const scalar* sensitivity,     \
      double leak, double subtraction, double trace_noise, const scalar* noise, const scalar* before, const scalar* y, const scalar* x,  \
      const scalar* heard, const scalar* sent, const scalar* read, scalar* value, scalar* passed, scalar* gradient) {                    \
    Step<scalar>{E,      P,           N,           R,      B,  ranks, kinds, source, target, port, node, parameter, pair,  kind,   bound, \
                 rowptr, col,         feed,        keep,   c,  sensitivity,  leak,   subtraction,  trace_noise,     noise, before, y,     \
                 x,      heard,       sent,        read,   value, passed, gradient}                                                       \
        .run();                                                                                                                           \
  }

EXPORT(float)
EXPORT(double)
