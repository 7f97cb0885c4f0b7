// See Tensor.hpp.
#pragma once
#include <MNN/Tensor.hpp>
#include <string>
#include <vector>

enum MNNForwardType { MNN_FORWARD_CPU = 0 };

namespace MNN {

enum ErrorCode { NO_ERROR = 0 };

struct BackendConfig {
    enum MemoryMode { Memory_Normal };
    enum PowerMode { Power_Normal };
    enum PrecisionMode { Precision_Normal, Precision_High, Precision_Low };

    MemoryMode memory = Memory_Normal;
    PowerMode power = Power_Normal;
    PrecisionMode precision = Precision_Normal;
    void* sharedContext = nullptr;
};

struct ScheduleConfig {
    std::vector<std::string> saveTensors;
    MNNForwardType type = MNN_FORWARD_CPU;
    int numThread = 4;

    struct Path {
        std::vector<std::string> inputs, outputs;
        int mode = 0;
    } path;

    MNNForwardType backupType = MNN_FORWARD_CPU;
    BackendConfig* backendConfig = nullptr;
};

static_assert(sizeof(ScheduleConfig) == 104, "the layout of MNN::ScheduleConfig on 64-bit systems");

class Session;

class Interpreter {
  public:
    static Interpreter* createFromFile(const char* file);
    ~Interpreter();
    Session* createSession(const ScheduleConfig& config);
    Tensor* getSessionInput(const Session* session, const char* name);
    Tensor* getSessionOutput(const Session* session, const char* name);
    ErrorCode runSession(Session* session) const;
};

}  // namespace MNN
