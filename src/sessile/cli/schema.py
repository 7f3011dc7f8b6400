"""Print the statements that create the table in which an SQL database keeps sessions.

Servers create it themselves in SQLite. Elsewhere their user need not be allowed to: somebody who is runs this once.
What is there already stays as it is. Of the URL only the kind of database counts; nothing is connected to.

Examples:
  sessile schema postgresql:// | psql mydatabase
  sessile schema mysql:// | mariadb mydatabase
  sessile schema postgresql:// --cluster shop
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sessile.stores.sql_schema import schema_sql, table_name

if TYPE_CHECKING:
    import argparse

HELP = "print the table that an SQL database needs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this subcommand."""
    parser.add_argument("url", metavar="URL", help="postgresql://…, mysql://… or sqlite:///…, as the servers have it")
    parser.add_argument("--cluster", default="sessile", metavar="NAME", help="the cluster's name (sessile)")
    parser.add_argument("--json", action="store_true", help='print {"table": "...", "sql": "..."}')


def run(arguments: argparse.Namespace) -> int:
    """Print the statements.

    Raises:
        SettingsError: the URL names no SQL database.
    """
    sql = schema_sql(arguments.url, arguments.cluster)
    if arguments.json:
        print(json.dumps({"table": table_name(arguments.cluster), "sql": sql}))
    else:
        print(sql, end="")
    return 0
