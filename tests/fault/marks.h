/* How a program tells the supervisor between which of its moments faults are wanted: prctl(MARK, which). */
#ifndef FAULT_MARKS_H
#define FAULT_MARKS_H

#define MARK 0x52504642 /* no operation of the kernel's: without a supervisor it is EINVAL, and harmless */

enum { MARK_BEGIN = 1, MARK_END = 2 };

#endif
