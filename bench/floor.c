// How many operations a second one core does at most: independent multiply-adds on registers, nothing from memory.
// Prints lines "fp32 GIGAOPS", and "bf16", "int8" where the processor has instructions for them.
#include <stdio.h>
#include <time.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define BYTES 64
#define CHAINS 14  // enough to hide the latency of four cycles on two units, few enough for the registers
#elif defined(__AVX__)
#define BYTES 32
#define CHAINS 12
#else
#define BYTES 16
#define CHAINS 12
#endif

typedef float Vector __attribute__((vector_size(BYTES)));

static const long ROUNDS = 40000000;

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

#define UNROLLED _Pragma("GCC unroll 16")

// Runs `STEP` on every chain, over and over. Chains begin differently, or the compiler would compute one for all; the
// empty assembly keeps it from leaving rounds out.
#define MEASURE(NAME, TYPE, FIRST, STEP, OPERATIONS)                                                       \
  do {                                                                                                     \
    TYPE chain[CHAINS];                                                                                    \
    UNROLLED for (int i = 0; i < CHAINS; i++) chain[i] = FIRST;                                            \
    double start = seconds();                                                                              \
    for (long round = 0; round < ROUNDS; round++) {                                                        \
      UNROLLED for (int i = 0; i < CHAINS; i++) chain[i] = STEP;                                           \
      __asm__ volatile("" : "+v"(chain[0]));                                                               \
    }                                                                                                      \
    double taken = seconds() - start;                                                                      \
    UNROLLED for (int i = 0; i < CHAINS; i++) __asm__ volatile("" : : "v"(chain[i]));                      \
    printf("%s %.1f\n", NAME, 1e-9 * ROUNDS * CHAINS * (OPERATIONS) / taken);                              \
  } while (0)

int main(void) {
  Vector near_one = {0}, small = {0};
  near_one += 0.999f;
  small += 0.001f;
  MEASURE("fp32", Vector, small * (float)i, chain[i] * near_one + small, 2.0 * BYTES / 4);
#if defined(__AVX512BF16__)
  __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
  MEASURE("bf16", __m512, _mm512_set1_ps(i), _mm512_dpbf16_ps(chain[i], ones, ones), 2.0 * BYTES / 2);
#endif
#if defined(__AVX512VNNI__)
  __m512i bytes = _mm512_set1_epi8(3);
  MEASURE("int8", __m512i, _mm512_set1_epi32(i), _mm512_dpbusd_epi32(chain[i], bytes, bytes), 2.0 * BYTES);
#endif
  return 0;
}
