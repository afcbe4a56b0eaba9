/*
 * identity.h - who this machine is: its epoch, token, variables, default user.
 *
 * A template's memory is restored many times; each restoration gets its own identity by POST /init,
 * before anything of the user's may run or be reached.
 */
#pragma once
#include "buf.h"
#include <json-c/json.h>
#include <stdbool.h>

bool identity_ready(void); /* an init has happened */
bool identity_token_is(const char *token);
const char *identity_token(void);   /* NULL: none yet */
const char *identity_user(void);    /* never NULL */
const char *identity_workdir(void); /* NULL: the user's home */
/* The capsule's variables, an object of texts; NULL: none. */
struct json_object *identity_variables(void);
