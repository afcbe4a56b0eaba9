/* chain.c - see chain.h. */
#include "chain.h"
#include "artifact.h"

#include <fcntl.h>
#include <string.h>

const char *
chain_file(unsigned n, char ret[LAYER_NAME])
{
	if (n)
		snprintf(ret, LAYER_NAME, "disk-%u.qcow2", n);
	else
		snprintf(ret, LAYER_NAME, "disk.qcow2");
	return ret;
}

const char *
chain_node(unsigned n, char ret[LAYER_NAME])
{
	if (n)
		snprintf(ret, LAYER_NAME, "d1-%u", n);
	else
		snprintf(ret, LAYER_NAME, "d1");
	return ret;
}

int
chain_push(struct chain *c, const char *layer, struct err *e)
{
	if (c->layers == LAYERS_MAX)
		return err_set(e, E_OVERLOADED,
		    "the disk has %d layers: they are being flattened, come back later",
		    LAYERS_MAX);
	snprintf(c->layer[c->layers++], LAYER_NAME, "%s", layer);
	return 0;
}

int
chain_open(const struct chain *c, int state, int folder, int ret[LAYERS_MAX], struct err *e)
{
	size_t i;

	for (i = 0; i < c->layers; i++) {
		ret[i] = artifact_id_ok(c->layer[i])
		    ? artifact_open(state, c->layer[i], "disk.qcow2", e)
		    : openat(folder, c->layer[i], O_RDONLY | O_CLOEXEC);
		if (ret[i] >= 0)
			continue;
		if (!artifact_id_ok(c->layer[i]))
			err_sys(e, "%s", c->layer[i]);
		while (i--)
			close(ret[i]);
		return -1;
	}
	return 0;
}

void
chain_json(const struct chain *c, struct buf *b)
{
	size_t i;

	buf_fmt(b, ",\"active\":%u,\"layers\":[", c->active);
	for (i = 0; i < c->layers; i++)
		buf_fmt(b, "%s\"%s\"", i ? "," : "", c->layer[i]);
	buf_chr(b, ']');
}

void
chain_read(struct chain *c, struct json_object *j)
{
	struct json_object *list = json_get(j, "layers");
	size_t n = json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
	size_t i;

	*c = (struct chain){ .active = (unsigned)json_int(j, "active", 0) };
	for (i = 0; i < n && i < LAYERS_MAX; i++)
		snprintf(c->layer[c->layers++], LAYER_NAME, "%s",
		    json_object_get_string(json_object_array_get_idx(list, i)));
}

int
chain_of_artifact(struct chain *c, int state, const char *id, struct err *e)
{
	char name[LAYERS_MAX + 1][LAYER_NAME];
	size_t n = 0;

	snprintf(name[0], LAYER_NAME, "%.64s", id);
	for (bool more = true; more; n++) {
		auto_talloc struct artifact *a = artifact_read(NULL, state, name[n], e);

		if (!a || artifact_verify_once(state, name[n], e) < 0)
			return -1;
		if (n == LAYERS_MAX || !artifact_file(a, "disk.qcow2"))
			return err_set(e, E_TAMPERED, "artifact %.64s is no disk", name[n]);
		more = a->parent != NULL;
		if (more)
			snprintf(name[n + 1], LAYER_NAME, "%s", a->parent);
	}
	*c = (struct chain){ .layers = n };
	while (n--)
		memcpy(c->layer[c->layers - 1 - n], name[n], LAYER_NAME);
	return 0;
}
