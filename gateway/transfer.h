/* transfer.h - file contents, streamed both ways (spec 02 §2.6). */
#pragma once
#include "route.h"

handler transfer_read, transfer_content, transfer_write, transfer_write_stream;

struct by_path {
	const char *path;
};

struct content {
	const char *path, *download;
};
