/* events_ws.h - live events on a WebSocket; of events.c's table of routes. */
#pragma once
#include "route.h"

handler events_ws;
