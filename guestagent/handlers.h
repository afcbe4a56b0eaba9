/* handlers.h - the functions in server.c's table; each lives in the file of its noun. */
#pragma once
#include "call.h"

call_fn identity_health, identity_init, identity_envs, metrics_get, stats_get, files_get,
    files_post, files_compose, process_stream_input, ports_get, tunnel_connect;
rpc_fn process_rpc_start, process_rpc_connect, process_rpc_list, process_rpc_send_input,
    process_rpc_close_stdin, process_rpc_signal, process_rpc_update;
rpc_fn filesystem_stat, filesystem_make_dir, filesystem_move, filesystem_remove,
    filesystem_list_dir, filesystem_watch_dir, filesystem_create_watcher,
    filesystem_get_watcher_events, filesystem_remove_watcher;

/* This is another machine from now on: watchers of callers that do not know it go. */
void watchers_forget(void);
