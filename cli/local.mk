# cli/local.mk - hutchctl, the administrator's program.
MIGRATIONS = sql/migrations/0001_identity.sql sql/migrations/0002_capsules.sql sql/migrations/0003_events_jobs.sql sql/migrations/0004_events_rest.sql sql/migrations/0005_lifecycle.sql sql/migrations/0006_hosts.sql sql/migrations/0007_accounts.sql sql/migrations/0008_teams.sql sql/migrations/0009_deletion.sql sql/migrations/0010_metrics.sql sql/migrations/0011_forgotten.sql sql/migrations/0012_ports.sql sql/migrations/0013_streams.sql sql/migrations/0014_e2b.sql sql/migrations/0015_events.sql sql/migrations/0016_snapshot_policies.sql sql/migrations/0017_cli.sql sql/migrations/0018_idle_memory.sql sql/migrations/0019_e2b_rest.sql sql/migrations/0021_host_capacity.sql sql/migrations/0022_scaling.sql
EXTRA_DIST += $(MIGRATIONS) tools/embed.awk
sbin_PROGRAMS += cli/hutchctl
cli_hutchctl_SOURCES = cli/hutchctl.c cli/ctl.h cli/ctl_migrate.c cli/ctl_people.c cli/ctl_accounts.c cli/ctl_platform.c cli/ctl_audit.c cli/ctl_idps.c cli/ctl_hostcheck.c cli/migration.h
nodist_cli_hutchctl_SOURCES = cli/migrations.c
cli_hutchctl_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/cli
cli_hutchctl_LDADD = $(HUTCH_LIBS)
CLEANFILES += cli/migrations.c
cli/migrations.c: $(MIGRATIONS) tools/embed.awk
	$(AM_V_GEN)$(MKDIR_P) cli && cd $(srcdir) && $(AWK) -f tools/embed.awk $(MIGRATIONS) >$(abs_builddir)/$@.tmp && mv $(abs_builddir)/$@.tmp $(abs_builddir)/$@
EXTRA_DIST += cli/README.md
