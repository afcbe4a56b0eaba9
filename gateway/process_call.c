/* process_call.c - see process_call.h. */
#include "process_call.h"

#include "cleanup.h"
#include "crypto.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <talloc.h>

enum { TAG_MAX = 64 };

/* clang-format off */
static const char *const signals[] = { "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2",
	"SIGSTOP", "SIGCONT" };
/* clang-format on */

int
process_selector_read(const char *s, struct process_selector *ret, struct err *e)
{
	bool pid = strncmp(s, "pid:", 4) == 0, tag = strncmp(s, "tag:", 4) == 0;
	const char *text = pid || tag ? s + 4 : s;
	size_t digits = strspn(text, "0123456789");

	*ret = (struct process_selector){ 0 };
	if (!tag && *text && !text[digits] && digits < 10)
		ret->pid = strtoll(text, NULL, 10);
	else if (!pid)
		ret->tag = text;
	if (ret->pid <= 0 && (!ret->tag || !*ret->tag || strlen(ret->tag) > TAG_MAX))
		return err_set(e, E_BAD_INPUT, "\"%.40s\" is neither a pid nor a tag", s);
	return 0;
}

void
process_selector_put(struct buf *b, const struct process_selector *s)
{
	if (s->pid) {
		buf_fmt(b, "{\"process\":{\"pid\":%" PRId64 "}", s->pid);
		return;
	}
	buf_str(b, "{\"process\":{\"tag\":");
	buf_json(b, s->tag);
	buf_chr(b, '}');
}

const char *
process_signal_name(void *mem, const char *name)
{
	for (size_t i = 0; i < nitems(signals); i++)
		if (strcmp(signals[i], name) == 0 || strcmp(signals[i] + 3, name) == 0)
			return talloc_asprintf(mem, "SIGNAL_%s", signals[i]);
	return NULL;
}

int
process_tag_check(const char *tag, struct err *e)
{
	const char *chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";

	if (tag && (!*tag || strlen(tag) > TAG_MAX || strspn(tag, chars) != strlen(tag)))
		return err_set(e, E_BAD_INPUT,
		    "\"tag\" is not 1 to 64 letters, digits, dots, underscores and hyphens");
	return 0;
}

const char *
process_tag_new(void *mem, const char *word)
{
	uint8_t b[4];
	char hex[9];

	crypto_random(b, sizeof b);
	return talloc_asprintf(mem, "%s-%s", word, hex_write(hex, b, sizeof b));
}

int
process_user_check(const char *user, struct err *e)
{
	if (user && (!*user || strchr(user, ':')))
		return err_set(e, E_BAD_INPUT, "\"user\" is not the name of a user");
	return 0;
}

static void
put_list(struct buf *b, const char *const *list)
{
	buf_chr(b, '[');
	for (size_t i = 0; list[i]; i++) {
		if (i)
			buf_chr(b, ',');
		buf_json(b, list[i]);
	}
	buf_chr(b, ']');
}

static void
put_map(struct buf *b, const struct pair *map)
{
	buf_chr(b, '{');
	for (size_t i = 0; map[i].name; i++) {
		if (i)
			buf_chr(b, ',');
		buf_json(b, map[i].name);
		buf_chr(b, ':');
		buf_json(b, map[i].value);
	}
	buf_chr(b, '}');
}

void
process_start_put(struct buf *b, const struct process_start *in)
{
	buf_str(b, "{\"process\":{\"cmd\":");
	buf_json(b, in->cmd);
	if (in->args && in->args[0]) {
		buf_str(b, ",\"args\":");
		put_list(b, in->args);
	}
	if (in->envs && in->envs[0].name) {
		buf_str(b, ",\"envs\":");
		put_map(b, in->envs);
	}
	if (in->cwd && *in->cwd) {
		buf_str(b, ",\"cwd\":");
		buf_json(b, in->cwd);
	}
	buf_str(b, "},\"tag\":");
	buf_json(b, in->tag);
	if (in->cols)
		buf_fmt(b, ",\"pty\":{\"size\":{\"cols\":%" PRId64 ",\"rows\":%" PRId64 "}}",
		    in->cols, in->rows);
	/* since: asks for the additive fields; a signal's number is among them. */
	buf_fmt(b, ",\"since\":0,\"stdin\":%s}", in->input ? "true" : "false");
}
