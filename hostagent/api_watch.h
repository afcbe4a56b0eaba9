/* api_watch.h - rows of the control API that look at a capsule (api.c). */
#pragma once
#include "api_call.h"

api_handler watch_touch, watch_metrics, watch_logs;
