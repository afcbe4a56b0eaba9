/* transfer.h - file contents, streamed both ways (spec 02 §2.6). */
#pragma once
#include "route.h"

handler transfer_read, transfer_write, transfer_write_stream;

struct by_path {
	const char *path;
};
