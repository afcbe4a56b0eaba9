/* banned.h - functions that invite overflows, races or locale surprises do not compile. Included by config.h's last line. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#pragma GCC poison strcpy strcat strncpy strncat sprintf vsprintf strtok gmtime localtime ctime atoi atol system popen tmpnam mktemp
