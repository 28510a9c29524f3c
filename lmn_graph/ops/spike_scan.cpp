// Leaky spiking neurons with resources over many steps, and the adjoint: see spike_scan.py, whose formulas these loops are.
//
// Samples do not meet: W of them at a time run all steps by themselves, their states in arrays [N][W] that stay in a cache, so that a
// sum over neighbours reads whole cache lines, and threads share nothing but the weights. A pack of lanes is one vector register.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>
#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(_MSC_VER)
#define APART __declspec(noinline)
#else
#define APART __attribute__((noinline))  // three times faster to compile, and as fast
#endif

namespace {

constexpr int64_t STEPS = 8;  // whose factors of the weights' gradient are multiplied at once

constexpr int64_t TOGETHER = 16;

enum Reset { NONE, ZERO, SUBTRACT };

template <typename scalar, int W>
struct Lanes {
  static constexpr int L = 32 / sizeof(scalar), P = W / L;
  typedef scalar Pack __attribute__((vector_size(32)));
  static Pack load(const scalar* from) {
    Pack pack;
    std::memcpy(&pack, from, sizeof(pack));
    return pack;
  }
  static void store(const Pack& pack, scalar* into) { std::memcpy(into, &pack, sizeof(pack)); }
  static Pack all(scalar value) { return Pack{} + value; }
  static scalar sum(const Pack& pack) {
    scalar total = 0;
    for (int b = 0; b < L; ++b) total += pack[b];
    return total;
  }
};

template <typename scalar>
struct Lanes<scalar, 1> {
  static constexpr int L = 1, P = 1;
  typedef scalar Pack;
  static Pack load(const scalar* from) { return *from; }
  static void store(const Pack& pack, scalar* into) { *into = pack; }
  static Pack all(scalar value) { return value; }
  static scalar sum(const Pack& pack) { return pack; }
};

// Arrays of one size in one piece of memory, from cache lines on, of which equal rows are in different sets of a cache
template <typename scalar>
class Arrays {
 public:
  Arrays(int64_t count, int64_t size) : size_((size + LINE - 1) / LINE * LINE + 5 * LINE), memory_(count * size_ + LINE) {}
  scalar* next() {
    const auto at = reinterpret_cast<uintptr_t>(memory_.data()) % 64 / sizeof(scalar);
    return memory_.data() + (at ? LINE - at : 0) + size_ * taken_++;
  }

 private:
  static constexpr int64_t LINE = 64 / sizeof(scalar);
  int64_t size_, taken_ = 0;
  std::vector<scalar> memory_;
};

template <typename scalar>
struct Neurons {
  int64_t N, E, B, threads, reset, resources;
  const int32_t *rowptr, *col;
  const scalar *weight, *threshold, *decay, *utilisation, *recovery;
};

// Each of some frames [N, B] is for `hold` steps, of which it drives every one or the first
struct Holding {
  int64_t hold, every;
  int64_t frame(int64_t t) const { return every || t % hold == 0 ? t / hold : -1; }
};

// Rows of W numbers
template <typename scalar>
struct Rows {
  const scalar* data;
  int64_t apart;
  const scalar* operator[](int64_t i) const { return data + i * apart; }
};

// An array [T, N, B] of any strides
template <typename scalar>
struct Strided {
  scalar* data;
  int64_t step, node, sample;

  explicit operator bool() const { return data != nullptr; }
  scalar* at(int64_t t, int64_t b) const { return data + t * step + b * sample; }

  // a tile [N][W] of the samples b ... b + width - 1, zero beyond them; `add` puts it on top of what is there
  template <int W>
  APART void read(int64_t t, int64_t b, int64_t width, int64_t N, scalar* tile, bool add = false) const {
    const scalar* from = at(t, b);
    if (!add && width < W) std::fill(tile, tile + N * W, scalar(0));
    if (sample == 1 && width == W && !add) {
      for (int64_t i = 0; i < N; ++i) std::memcpy(tile + i * W, from + i * node, W * sizeof(scalar));
    } else if (sample == 1) {
      for (int64_t i = 0; i < N; ++i)
        for (int64_t k = 0; k < width; ++k) tile[i * W + k] = from[i * node + k] + (add ? tile[i * W + k] : scalar(0));
    } else {
      for (int64_t first = 0; first < N; first += TOGETHER)  // of a tile that stay in the first cache
        for (int64_t k = 0; k < width; ++k)
          for (int64_t i = first; i < std::min(first + TOGETHER, N); ++i)
            tile[i * W + k] = from[k * sample + i * node] + (add ? tile[i * W + k] : scalar(0));
    }
  }

  // the same tile without a copy where there is one in memory: where it begins, and how far its rows are apart
  template <int W>
  Rows<scalar> rows(int64_t t, int64_t b, int64_t width, int64_t N, std::vector<scalar>& tile) const {
    if (sample == 1 && width == W) return {at(t, b), node};
    tile.resize(N * W);
    read<W>(t, b, width, N, tile.data());
    return {tile.data(), W};
  }

  template <int W>
  APART void write(int64_t t, int64_t b, int64_t width, int64_t N, const scalar* tile, bool add = false) const {
    scalar* into = at(t, b);
    if (sample == 1 && width == W && !add) {
      for (int64_t i = 0; i < N; ++i) std::memcpy(into + i * node, tile + i * W, W * sizeof(scalar));
    } else if (sample == 1) {
      for (int64_t i = 0; i < N; ++i)
        for (int64_t k = 0; k < width; ++k) into[i * node + k] = tile[i * W + k] + (add ? into[i * node + k] : scalar(0));
    } else {
      for (int64_t first = 0; first < N; first += TOGETHER)
        for (int64_t k = 0; k < width; ++k)
          for (int64_t i = first; i < std::min(first + TOGETHER, N); ++i) {
            scalar& one = into[k * sample + i * node];
            one = tile[i * W + k] + (add ? one : scalar(0));
          }
    }
  }
};

// sum over e in [first, last) of weight x[col]
template <typename scalar, int W>
inline void gather(const scalar* weight, const int32_t* col, int32_t first, int32_t last, const scalar* x,
                   typename Lanes<scalar, W>::Pack* sum) {
  using Of = Lanes<scalar, W>;
  typename Of::Pack even[Of::P] = {}, odd[Of::P] = {};
  int32_t e = first;
  for (; e + 1 < last; e += 2) {
    const scalar *one = x + static_cast<int64_t>(col[e]) * W, *other = x + static_cast<int64_t>(col[e + 1]) * W;
    for (int p = 0; p < Of::P; ++p) {
      even[p] += weight[e] * Of::load(one + p * Of::L);
      odd[p] += weight[e + 1] * Of::load(other + p * Of::L);
    }
  }
  if (e < last)
    for (int p = 0; p < Of::P; ++p) even[p] += weight[e] * Of::load(x + static_cast<int64_t>(col[e]) * W + p * Of::L);
  for (int p = 0; p < Of::P; ++p) sum[p] = even[p] + odd[p];
}

// Steps start ... start + T - 1 of a run; v_of and r_of are the state before them, and after.
template <typename scalar, int W>
void forward(const Neurons<scalar>& of, const Holding& holding, int64_t start, int64_t T, const Strided<scalar>& drive, const Strided<scalar>& v_of,
             const Strided<scalar>& r_of, const Strided<scalar>& s_of, const Strided<scalar>& v_kept, const Strided<scalar>& r_kept) {
  using Of = Lanes<scalar, W>;
  using Pack = typename Of::Pack;
  const int64_t N = of.N, B = of.B, blocks = (B + W - 1) / W;
#pragma omp parallel for schedule(static) num_threads(of.threads) if (of.threads > 1)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t at = block * W, width = std::min<int64_t>(W, B - at);
    Arrays<scalar> arrays(4, N * W);
    scalar *v = arrays.next(), *r = arrays.next(), *s = arrays.next(), *x = arrays.next();
    std::vector<scalar> tile;
    Rows<scalar> given{};
    v_of.template read<W>(0, at, width, N, v);
    r_of.template read<W>(0, at, width, N, r);
    const Pack one = Of::all(1), none = Of::all(0);
    for (int64_t t = 0; t < T; ++t) {
      const int64_t frame = drive ? holding.frame(start + t) : -1;
      if (frame >= 0 && (t == 0 || frame != holding.frame(start + t - 1))) given = drive.template rows<W>(frame, at, width, N, tile);
      for (int64_t i = 0; i < N; ++i)
        for (int64_t k = i * W; k < (i + 1) * W; k += Of::L) {
          const Pack spike = Of::load(&v[k]) >= of.threshold[i] ? one : none;
          Of::store(spike, &s[k]);
          if (of.resources) Of::store(spike * Of::load(&r[k]), &x[k]);
        }
      if (s_of) s_of.template write<W>(t, at, width, N, s);
      for (int64_t i = 0; i < N; ++i) {
        Pack heard[Of::P];
        gather<scalar, W>(of.weight, of.col, of.rowptr[i], of.rowptr[i + 1], of.resources ? x : s, heard);
        const scalar keep = of.decay[i], use = of.utilisation[i], back = of.recovery[i];
        const Pack less = Of::all(of.reset == SUBTRACT ? of.threshold[i] : scalar(0));
        for (int p = 0; p < Of::P; ++p) {
          const int64_t k = i * W + p * Of::L;
          const Pack before = Of::load(&v[k]), spike = Of::load(&s[k]);
          Pack after = heard[p] + (before - (of.reset == ZERO ? before : less) * spike) * keep;
          if (frame >= 0) after += Of::load(given[i] + p * Of::L);
          Of::store(after, &v[k]);
          if (of.resources) {
            const Pack had = Of::load(&r[k]), left = had + back * (one - had) - use * spike;
            Of::store(left < none ? none : left, &r[k]);  // NaN stays NaN
          }
        }
      }
      if (v_kept) v_kept.template write<W>(t, at, width, N, v);
      if (r_kept) r_kept.template write<W>(t, at, width, N, r);
    }
    v_of.template write<W>(0, at, width, N, v);
    r_of.template write<W>(0, at, width, N, r);
  }
}

// weight_e += <g of its target, x of its source>, rows [STEPS][W] of which `steps` are filled
template <typename scalar, int W>
void correlate(const Neurons<scalar>& of, const scalar* g, const scalar* x, int64_t steps, scalar* d_weight) {
  using Of = Lanes<scalar, W>;
  constexpr int64_t row = STEPS * W, ahead = 4 * Of::L;
  const int64_t n = steps * W;
  for (int64_t i = 0; i < of.N; ++i) {
    const scalar* left = g + i * row;
    for (int32_t e = of.rowptr[i]; e < of.rowptr[i + 1]; ++e) {
      const scalar* right = x + of.col[e] * row;
      typename Of::Pack sums[4] = {};
      int64_t k = 0;
      for (; k + ahead <= n; k += ahead)
        for (int p = 0; p < 4; ++p) sums[p] += Of::load(left + k + p * Of::L) * Of::load(right + k + p * Of::L);
      for (; k < n; k += Of::L) sums[0] += Of::load(left + k) * Of::load(right + k);
      d_weight[e] += Of::sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
  }
}

// The same steps from the last to the first. v_kept and r_kept [T, N, B] are the states before each step, r_after the resources after
// each; g_v and g_r [N, B] go in as gradients to the state after them and come out as those to the state before.
template <typename scalar, int W>
void backward(const Neurons<scalar>& of, const Holding& holding, int64_t start, int64_t T, int64_t detach, const int32_t* rowptr_t,
              const int32_t* col_t, const scalar* weight_t, const Strided<scalar>& v_kept, const Strided<scalar>& r_kept,
              const Strided<scalar>& r_after, const Strided<scalar>& slope_of, const Strided<scalar>& g_s, const Strided<scalar>& g_v_kept,
              const Strided<scalar>& g_r_kept, const Strided<scalar>& g_v, const Strided<scalar>& g_r, const Strided<scalar>& d_drive,
              scalar* d_weight, scalar* d_neuron) {
  using Of = Lanes<scalar, W>;
  using Pack = typename Of::Pack;
  const int64_t N = of.N, B = of.B, blocks = (B + W - 1) / W;
#pragma omp parallel num_threads(of.threads) if (of.threads > 1)
  {
#if defined(_OPENMP)
    const int64_t thread = omp_get_thread_num();
#else
    const int64_t thread = 0;
#endif
    Arrays<scalar> arrays(7, N * W), factors(d_weight ? 2 : 0, N * STEPS * W);
    scalar *gv = arrays.next(), *next = arrays.next(), *gr = arrays.next(), *sums[4];
    for (auto& sum : sums) sum = arrays.next();
    scalar *g = factors.next(), *x = factors.next();
    std::vector<scalar> tiles[5];
    Rows<scalar> v{}, r{}, after{}, slope{}, spikes{};
    scalar *own_weight = d_weight ? d_weight + thread * of.E : nullptr, *own_neuron = d_neuron + thread * 4 * N;
    const Pack one = Of::all(1), none = Of::all(0);
    const scalar zero = of.reset == ZERO ? 1 : 0, subtract = of.reset == SUBTRACT ? 1 : 0, through = detach ? 0 : 1;
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t at = block * W, width = std::min<int64_t>(W, B - at);
      g_v.template read<W>(0, at, width, N, gv);
      g_r.template read<W>(0, at, width, N, gr);
      for (auto* sum : sums) std::fill(sum, sum + N * W, scalar(0));
      int64_t filled = 0;
      for (int64_t t = T - 1; t >= 0; --t) {
        if (g_v_kept) g_v_kept.template read<W>(t, at, width, N, gv, true);
        if (g_r_kept) g_r_kept.template read<W>(t, at, width, N, gr, true);
        const int64_t frame = d_drive ? holding.frame(start + t) : -1;
        if (frame >= 0) d_drive.template write<W>(frame, at, width, N, gv, true);
        v = v_kept.template rows<W>(t, at, width, N, tiles[0]);
        slope = slope_of.template rows<W>(t, at, width, N, tiles[1]);
        if (g_s) spikes = g_s.template rows<W>(t, at, width, N, tiles[2]);
        if (of.resources) {
          r = r_kept.template rows<W>(t, at, width, N, tiles[3]);
          after = r_after.template rows<W>(t, at, width, N, tiles[4]);
        }
        for (int64_t i = 0; i < N; ++i) {
          Pack heard[Of::P];
          gather<scalar, W>(weight_t, col_t, rowptr_t[i], rowptr_t[i + 1], gv, heard);
          const scalar theta = of.threshold[i], keep = of.decay[i], use = of.utilisation[i], back = of.recovery[i];
          scalar *to_theta = sums[0] + i * W, *to_keep = sums[1] + i * W, *to_use = sums[2] + i * W, *to_back = sums[3] + i * W;
          for (int p = 0; p < Of::P; ++p) {
            const int64_t k = i * W + p * Of::L, q = p * Of::L;
            const Pack before = Of::load(v[i] + q), to_v = Of::load(&gv[k]), spike = before >= theta ? one : none, up = to_v * keep;
            const Pack had = of.resources ? Of::load(r[i] + q) : one, taken = of.reset == ZERO ? before : Of::all(subtract * theta);
            Pack to_s = heard[p] * had - through * up * taken;
            if (g_s) to_s += Of::load(spikes[i] + q);
            if (of.resources) {
              const Pack open = Of::load(after[i] + q) > none ? Of::load(&gr[k]) : none;
              to_s -= open * use;
              Of::store(open * (1 - back) + heard[p] * spike, &gr[k]);
              Of::store(Of::load(to_back + q) + open * (one - had), to_back + q);
              Of::store(Of::load(to_use + q) - open * spike, to_use + q);
            }
            const Pack crossing = to_s * Of::load(slope[i] + q);
            Of::store(up * (one - zero * spike) + crossing, &next[k]);
            Of::store(Of::load(to_theta + q) - crossing - subtract * up * spike, to_theta + q);
            Of::store(Of::load(to_keep + q) + to_v * (before - taken * spike), to_keep + q);
            if (d_weight != nullptr) {
              Of::store(to_v, &g[(i * STEPS + filled) * W + q]);
              Of::store(spike * had, &x[(i * STEPS + filled) * W + q]);
            }
          }
        }
        std::swap(gv, next);
        if (d_weight != nullptr && (++filled == STEPS || t == 0)) {
          correlate<scalar, W>(of, g, x, filled, own_weight);
          filled = 0;
        }
      }
      for (int64_t k = 0; k < 4; ++k)
        for (int64_t i = 0; i < N; ++i)
          for (int b = 0; b < W; ++b) own_neuron[k * N + i] += sums[k][i * W + b];
      g_v.template write<W>(0, at, width, N, gv);
      g_r.template write<W>(0, at, width, N, gr);
    }
  }
}

// As many samples at a time as leave every thread some
template <typename Run>
void in_blocks(int64_t B, int64_t threads, const Run& run) {
  if (B == 1)
    run(std::integral_constant<int, 1>());
  else if (B <= 8 * threads)
    run(std::integral_constant<int, 8>());
  else
    run(std::integral_constant<int, 16>());
}

}  // namespace

// One name for each precision
#define NEURON_ARGUMENTS(scalar)                                                                                                          \
  int64_t N, int64_t E, int64_t B, int64_t threads, int64_t reset, int64_t resources, const int32_t *rowptr, const int32_t *col,          \
      const scalar *weight, const scalar *threshold, const scalar *decay, const scalar *utilisation, const scalar *recovery,              \
      int64_t hold, int64_t every
#define NEURONS(scalar)                                                                                                                   \
  Neurons<scalar> { N, E, B, threads, reset, resources, rowptr, col, weight, threshold, decay, utilisation, recovery }
#define EXPORT(scalar)                                                                                                                    \
  extern "C" void forward_##scalar(NEURON_ARGUMENTS(scalar), int64_t start, int64_t T, const Strided<scalar>* drive, const Strided<scalar>* v,           \
                                   const Strided<scalar>* r, const Strided<scalar>* s, const Strided<scalar>* v_kept,                     \
                                   const Strided<scalar>* r_kept) {                                                                       \
    in_blocks(B, threads, [&](auto width) {                                                                                               \
      forward<scalar, decltype(width)::value>(NEURONS(scalar), Holding{hold, every}, start, T, *drive, *v, *r, *s, *v_kept, *r_kept);            \
    });                                                                                                                                   \
  }                                                                                                                                       \
  extern "C" void backward_##scalar(NEURON_ARGUMENTS(scalar), int64_t start, int64_t T, int64_t detach, const int32_t* rowptr_t,          \
                                    const int32_t* col_t, const scalar* weight_t, const Strided<scalar>* v_kept,                          \
                                    const Strided<scalar>* r_kept, const Strided<scalar>* r_after, const Strided<scalar>* slope,          \
                                    const Strided<scalar>* g_s, const Strided<scalar>* g_v_kept, const Strided<scalar>* g_r_kept,         \
                                    const Strided<scalar>* g_v, const Strided<scalar>* g_r, const Strided<scalar>* d_drive,               \
                                    scalar* d_weight, scalar* d_neuron) {                                                                 \
    in_blocks(B, threads, [&](auto width) {                                                                                               \
      backward<scalar, decltype(width)::value>(NEURONS(scalar), Holding{hold, every}, start, T, detach, rowptr_t, col_t, weight_t,        \
                                               *v_kept, *r_kept, *r_after, *slope, *g_s, *g_v_kept, *g_r_kept, *g_v, *g_r, *d_drive,      \
                                               d_weight, d_neuron);                                                                       \
    });                                                                                                                                   \
  }

EXPORT(float)
EXPORT(double)
