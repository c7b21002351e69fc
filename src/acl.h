/*
 * acl.h
 *	  Who may do what: the ACL of a queue's view, checked for the caller.
 */
#ifndef QUEUE_ACL_H
#define QUEUE_ACL_H

#include "utils/acl.h"

/* What a verb needs, in terms of privileges on the view. */
#define QUEUE_ACL_PEEK ACL_SELECT
#define QUEUE_ACL_ENQUEUE ACL_INSERT
#define QUEUE_ACL_DEQUEUE ACL_UPDATE
#define QUEUE_ACL_CANCEL ACL_DELETE

/* Above 0 while the extension itself runs DDL; the guard lets it pass. */
extern int	queue_acl_internal_ddl;

extern void queue_acl_check(Oid view, const char *name, AclMode need);
extern bool queue_acl_has(Oid view, AclMode need);
extern void queue_acl_check_owner(Oid view, const char *name);
extern void queue_acl_check_create(Oid namespace);
extern bool queue_acl_may_watch(Oid view);

#endif							/* QUEUE_ACL_H */
