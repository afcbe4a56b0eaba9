/* process_output.h - GET …/processes/{sel}/output: a piece of what a process wrote. */
#pragma once
#include "process_call.h"
#include "request.h"

/* Answers {chunks,next,gap?}: at most max bytes from since on. 0, or -1 with r->work.err. */
int output_read(struct request *, const struct process_selector *, uint64_t since, size_t max);
