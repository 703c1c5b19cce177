/* pyuv 1.4.0 on CPython 3.10 - 3.13.
 *
 * This header comes before the first line of pyuv's own source, and only there:
 * a bundled libuv is compiled without it, because libuv needs the true INT_MAX.
 *
 * Every header that pyuv includes later and that uses one of the names changed
 * below is included here first, so that only pyuv's own lines see the changes.
 */
#ifndef GREENTAPS_PYUV_COMPAT_H
#define GREENTAPS_PYUV_COMPAT_H

/* "#" formats take Py_ssize_t; CPython >= 3.10 refuses them without this. */
#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <structmember.h>
#include <structseq.h>
#include <limits.h>
#include <uv.h>

#ifdef Py_GIL_DISABLED
#error "pyuv relies on the GIL: use an ordinary (not free-threaded) CPython"
#endif
#if PY_VERSION_HEX < 0x030A0000
#error "this build of pyuv is for CPython 3.10 and later"
#endif
#if UV_VERSION_MAJOR != 1
#error "pyuv needs libuv 1.x"
#endif

/* pyuv assigns to Py_REFCNT() to bring a dying handle back to life. It has been
 * an inline function, so not assignable, since 3.10. */
#undef Py_REFCNT
#define Py_REFCNT(ob) (((PyObject *) (ob))->ob_refcnt)

/* These three occur once, together, as EncodeUTF8(AS_UNICODE(s), GET_SIZE(s), errors).
 * Let the first carry the object itself and the last one encode that object. */
#undef PyUnicode_AS_UNICODE
#undef PyUnicode_GET_SIZE
#undef PyUnicode_EncodeUTF8
#define PyUnicode_AS_UNICODE(str) (str)
#define PyUnicode_GET_SIZE(str) 0
#define PyUnicode_EncodeUTF8(str, size, errors) \
    PyUnicode_AsEncodedString((str), "utf-8", (errors))

/* Without effect since 3.7, deprecated since 3.9. */
#undef PyEval_InitThreads
#define PyEval_InitThreads() ((void) 0)

/* One request is freed in a libuv callback that runs without the GIL; the raw
 * allocator allows that. pyuv frees with PyMem_Free only what it allocated with
 * PyMem_Malloc, so both move together. */
#undef PyMem_Malloc
#undef PyMem_Free
#define PyMem_Malloc PyMem_RawMalloc
#define PyMem_Free PyMem_RawFree

/* Only used as the longest list of buffers that may become an array on the C
 * stack. That many would overrun the stack; now it is a ValueError. */
#undef INT_MAX
#define INT_MAX 1024

#endif
