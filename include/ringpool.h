/* ringpool: a Linux-native worker pool. This header is all of it; the parts stand alone under ringpool/. */
#ifndef RINGPOOL_H
#define RINGPOOL_H

#include <ringpool/base.h>
#include <ringpool/completion.h>
#include <ringpool/context.h>
#include <ringpool/future.h>
#include <ringpool/group.h>
#include <ringpool/histogram.h>
#include <ringpool/lock.h>
#include <ringpool/metrics.h>
#include <ringpool/multi.h>
#include <ringpool/pool.h>
#include <ringpool/retry.h>
#include <ringpool/strand.h>
#include <ringpool/task.h>
#include <ringpool/timer.h>

#endif
