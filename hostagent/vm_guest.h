/* vm_guest.h - calls of the agent's own to a guest, asked again when the guest refused them. */
#pragma once
#include "guest.h"
#include "vm.h"

/*
 * guest_call() to the VM's guest. What the guest refused (E_CLOSED) is asked again on a session
 * that was proven by a nonce, until the call's timeout. answer() as of guest_call().
 */
void vm_ask(struct vm *, void *owner, const struct guest_call *, guest_answer *answer, void *arg);
