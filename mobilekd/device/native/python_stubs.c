/* What MNN's wheel asks of CPython, so that its library loads where there is none.
 *
 * Its one shared library is both the engine and a Python module. Loading it needs the addresses below; none of them is
 * used by the engine. The program is linked with -rdynamic, which is how the library finds them.
 */
#include "mkdrun.h"

static void python_was_called(const char *name) {
    fail(EXIT_RUN, "run", "MNN called %s of CPython, and this program has no Python", name);
}

#define FUNCTION(name) \
    void name(void); \
    void name(void) { python_was_called(#name); }
/* Larger than any object of CPython that stands here. */
#define OBJECT(name) \
    extern char name[1024]; \
    _Alignas(16) char name[1024];

/* clang-format off */
    FUNCTION(PyArg_ParseTuple) FUNCTION(PyArg_ParseTupleAndKeywords) FUNCTION(PyBytes_Size)
    FUNCTION(PyCMethod_New) FUNCTION(PyCallable_Check) FUNCTION(PyCapsule_GetPointer) FUNCTION(PyCapsule_New)
    FUNCTION(PyDict_GetItemString) FUNCTION(PyDict_New) FUNCTION(PyDict_Next) FUNCTION(PyDict_SetItem)
    FUNCTION(PyDict_SetItemString) FUNCTION(PyErr_Clear) FUNCTION(PyErr_ExceptionMatches) FUNCTION(PyErr_Format)
    FUNCTION(PyErr_Occurred) FUNCTION(PyErr_SetString) FUNCTION(PyEval_RestoreThread)
    FUNCTION(PyEval_SaveThread) FUNCTION(PyFloat_AsDouble) FUNCTION(PyFloat_FromDouble)
    FUNCTION(PyImport_AddModule) FUNCTION(PyImport_Import) FUNCTION(PyImport_ImportModule)
    FUNCTION(PyList_GetItem) FUNCTION(PyList_New) FUNCTION(PyList_SetItem) FUNCTION(PyList_Size)
    FUNCTION(PyLong_AsLong) FUNCTION(PyLong_AsLongLongAndOverflow) FUNCTION(PyLong_AsVoidPtr)
    FUNCTION(PyLong_FromLong) FUNCTION(PyLong_FromLongLong) FUNCTION(PyModule_AddObject)
    FUNCTION(PyModule_Create2) FUNCTION(PyModule_GetName) FUNCTION(PyObject_Call) FUNCTION(PyObject_CallObject)
    FUNCTION(PyObject_GetAttrString) FUNCTION(PyObject_IsInstance) FUNCTION(PyObject_SetAttrString)
    FUNCTION(PySequence_Check) FUNCTION(PySequence_Fast) FUNCTION(PySequence_GetItem) FUNCTION(PySequence_Size)
    FUNCTION(PySlice_Unpack) FUNCTION(PyTuple_GetItem) FUNCTION(PyTuple_New) FUNCTION(PyTuple_SetItem)
    FUNCTION(PyTuple_Size) FUNCTION(PyType_IsSubtype) FUNCTION(PyType_Ready) FUNCTION(PyUnicode_AsUTF8String)
    FUNCTION(PyUnicode_DecodeUTF8) FUNCTION(PyUnicode_FromString) FUNCTION(Py_BuildValue) FUNCTION(_Py_Dealloc)

    OBJECT(PyCapsule_Type) OBJECT(PyEllipsis_Type) OBJECT(PyExc_Exception) OBJECT(PyExc_ModuleNotFoundError)
    OBJECT(PyExc_RuntimeError) OBJECT(PyExc_TypeError) OBJECT(PyExc_ValueError) OBJECT(PyFloat_Type)
    OBJECT(PySlice_Type) OBJECT(_Py_FalseStruct) OBJECT(_Py_NoneStruct) OBJECT(_Py_TrueStruct)
