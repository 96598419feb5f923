"""Run by Alembic; the connection comes from :func:`dialog.calls.store.database.upgrade`."""

from alembic import context

from dialog.calls.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
