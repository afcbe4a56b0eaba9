/* api_host.h - rows of the control API that look at the machine and at the agent itself (api.c). */
#pragma once
#include "api_call.h"

api_handler host_metrics, host_logs;
