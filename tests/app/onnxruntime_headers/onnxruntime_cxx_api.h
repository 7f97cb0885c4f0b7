// What the generated C++ uses of ONNX Runtime's interface, declared anew: its wheel has no headers. Syntax alone is
// checked against it; nothing here can be linked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING };
enum OrtAllocatorType { OrtArenaAllocator };
enum OrtMemType { OrtMemTypeDefault };

namespace Ort {

struct Env {
    Env(OrtLoggingLevel level, const char* name);
};

struct SessionOptions {
    SessionOptions();
    SessionOptions& SetIntraOpNumThreads(int threads);
    SessionOptions& AddConfigEntry(const char* key, const char* value);
};

struct RunOptions {
    explicit RunOptions(std::nullptr_t);
};

struct MemoryInfo {
    static MemoryInfo CreateCpu(OrtAllocatorType allocator, OrtMemType type);
};

struct Value {
    template <typename T>
    static Value CreateTensor(
        const MemoryInfo& memory, T* data, size_t count, const int64_t* shape, size_t dimensions);
    template <typename T>
    const T* GetTensorData() const;
};

struct Session {
    Session(const Env& env, const char* path, const SessionOptions& options);
    std::vector<Value> Run(
        const RunOptions& options, const char* const* input_names, const Value* inputs, size_t input_count,
        const char* const* output_names, size_t output_count);
};

}  // namespace Ort
