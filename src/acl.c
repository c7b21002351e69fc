/*
 * acl.c
 *	  Privileges on queues.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

#include "acl.h"
#include "compat.h"

/* Counts nested calls; reset by PG_FINALLY where it was raised. */
int			queue_acl_internal_ddl = 0;

static const char *
privilege_name(AclMode need)
{
	switch (need)
	{
		case QUEUE_ACL_PEEK:
			return "SELECT";
		case QUEUE_ACL_ENQUEUE:
			return "INSERT";
		case QUEUE_ACL_DEQUEUE:
			return "UPDATE";
		default:
			return "DELETE";
	}
}

bool
queue_acl_has(Oid view, AclMode need)
{
	return pg_class_aclcheck(view, GetUserId(), need) == ACLCHECK_OK;
}

void
queue_acl_check(Oid view, const char *name, AclMode need)
{
	if (need == ACL_NO_RIGHTS || queue_acl_has(view, need))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for queue \"%s\"", name),
			 errdetail("It needs the privilege %s on the view of the queue.", privilege_name(need)),
			 errhint("Its owner can grant it: GRANT %s ON queues.%s TO ...",
					 privilege_name(need), quote_identifier(name))));
}

void
queue_acl_check_owner(Oid view, const char *name)
{
	if (!queue_compat_owns_relation(view))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of queue \"%s\"", name)));
}

void
queue_acl_check_create(Oid namespace)
{
	if (!queue_compat_may_create_in(namespace))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to create a queue"),
				 errdetail("It needs the privilege CREATE on schema \"queues\"."),
				 errhint("The owner of the extension can grant it: GRANT CREATE ON SCHEMA queues TO ...")));
}

/* Whoever has any right on a queue sees its numbers; monitors see all. */
bool
queue_acl_may_watch(Oid view)
{
	return pg_class_aclmask(view, GetUserId(), ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE,
							ACLMASK_ANY) != 0 ||
		has_privs_of_role(GetUserId(), ROLE_PG_MONITOR);
}
