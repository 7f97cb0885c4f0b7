// What the generated C++ uses of MNN's interface, declared anew: MNN's wheel has the library and no headers.
// Names, sizes and offsets are those of MNN 2.9 to 3.6 on 64-bit systems (see also mobilekd/device/native/mnn.c).
#pragma once
#include <cstddef>
#include <cstdint>

namespace MNN {

class Tensor {
  public:
    enum DimensionType { TENSORFLOW, CAFFE, CAFFE_C4 };

    Tensor(const Tensor* like, DimensionType type = CAFFE, bool with_memory = true);
    ~Tensor();
    bool copyFromHostTensor(const Tensor* host);
    bool copyToHostTensor(Tensor* host) const;

    template <typename T>
    T* host() const {
        return reinterpret_cast<T*>(memory_);
    }

  private:
    uint64_t device_;
    const void* interface_;
    uint8_t* memory_;
    void* rest_[32];
};

static_assert(sizeof(void*) == 8, "the memory's address is at byte 16");

}  // namespace MNN
