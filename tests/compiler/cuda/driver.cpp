// A driver without a GPU that writes down what it is asked, by the structs of the real cuda.h.
#include <cuda.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>

static std::string said;
static bool has_context = true;
static char module, function;

template <class... A>
static void say(const char* format, A... a) {
  char line[400];
  std::snprintf(line, sizeof line, format, a...);
  said += line;
}

extern "C" {
const char* fake_said() {
  static std::string last;
  last = std::move(said);
  said.clear();
  return last.c_str();
}
void fake_context(int has) { has_context = has; }

CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = error == CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE ? "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"
          : error == CUDA_ERROR_NOT_FOUND                  ? "CUDA_ERROR_NOT_FOUND"
                                                           : nullptr;
  return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGetErrorString(CUresult, const char** words) {
  *words = "so it says";
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = reinterpret_cast<CUcontext>(has_context ? &module : nullptr);
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* made, const void* image) {
  *made = reinterpret_cast<CUmodule>(&module);
  const char* text = static_cast<const char*>(image);  // an ELF has zeros in it
  say("load %c%c%c%d%c\n", text[0], text[1], text[2], text[3], text[4]);
  return text[0] == 'c' ? CUDA_SUCCESS : CUresult(999);
}
CUresult cuModuleGetFunction(CUfunction* found, CUmodule in, const char* name) {
  if (in != reinterpret_cast<CUmodule>(&module) || std::strcmp(name, "step")) return CUDA_ERROR_NOT_FOUND;
  *found = reinterpret_cast<CUfunction>(&function);
  return CUDA_SUCCESS;
}
CUresult cuFuncLoad(CUfunction of) {
  say("function loaded %d\n", of == reinterpret_cast<CUfunction>(&function));
  return CUDA_SUCCESS;
}
CUresult cuFuncGetParamInfo(CUfunction, size_t index, size_t* offset, size_t* size) {
  *offset = 0;
  *size = 24;
  return index ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute attribute, int value) {
  say("%s = %d\n",
      attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES          ? "shared"
      : attribute == CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED ? "large clusters"
                                                                          : "?",
      value);
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int threads, size_t bytes) {
  say("occupancy %d %zu\n", threads, bytes);
  *blocks = 3;
  return CUDA_SUCCESS;
}
static void say_config(const CUlaunchConfig& c) {
  say("grid %u %u %u block %u %u %u shared %u stream %p", c.gridDimX, c.gridDimY, c.gridDimZ, c.blockDimX,
      c.blockDimY, c.blockDimZ, c.sharedMemBytes, static_cast<void*>(c.hStream));
  for (unsigned k = 0; k < c.numAttrs; ++k) {
    const auto& value = c.attrs[k].value;
    if (c.attrs[k].id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE) {
      say(" cooperative %d", value.cooperative);
    } else if (c.attrs[k].id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
      say(" cluster %u %u %u", value.clusterDim.x, value.clusterDim.y, value.clusterDim.z);
    } else {
      say(" attribute %d", int(c.attrs[k].id));
    }
  }
  say("\n");
}
CUresult cuOccupancyMaxActiveClusters(int* clusters, CUfunction, const CUlaunchConfig* config) {
  say_config(*config);
  *clusters = 16;
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction of, void** parameters, void** extra) {
  if (of != reinterpret_cast<CUfunction>(&function) || extra) return CUDA_ERROR_INVALID_HANDLE;
  if (config->gridDimX > 132) return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
  say_config(*config);
  say("parameters %.24s\n", static_cast<const char*>(parameters[0]));
  return CUDA_SUCCESS;
}
}

// What Python lays out by hand.
#define AT(S, F) extern "C" const std::size_t at_##S##_##F = offsetof(S, F);
AT(CUlaunchConfig, gridDimX) AT(CUlaunchConfig, blockDimX) AT(CUlaunchConfig, sharedMemBytes)
AT(CUlaunchConfig, hStream) AT(CUlaunchConfig, attrs) AT(CUlaunchConfig, numAttrs)
AT(CUlaunchAttribute, id) AT(CUlaunchAttribute, value)
#define SIZE(S) extern "C" const std::size_t size_##S = sizeof(S);
SIZE(CUlaunchConfig) SIZE(CUlaunchAttribute) SIZE(CUlaunchAttributeValue)
