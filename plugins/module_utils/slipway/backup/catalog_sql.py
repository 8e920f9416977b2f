# SPDX-License-Identifier: Apache-2.0
"""The SQL that reads a database's shape from its catalog. Text only; ``catalog`` runs it.

Each schema query gives (identity, definition) rows. Members of extensions are left out: CREATE EXTENSION brings them
back, and the extension's version stands for them. Written for PostgreSQL 14 and later; columns that only some majors
have are read through ``to_jsonb(row) ->> 'name'``, which is NULL where they are missing.
"""

# ruff: noqa: S608 - text put together from constants of this file alone
from __future__ import annotations

_USER_SCHEMA = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"


def _own(catalog: str, alias: str) -> str:
    """Condition: not a member of an extension."""
    return (
        f"NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalog}'::regclass"
        f" AND e.objid = {alias}.oid AND e.deptype = 'e')"
    )


_RELATION = f"pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND {_USER_SCHEMA} AND {_own('pg_class', 'c')}"
_NAME = "format('%I.%I', n.nspname, c.relname)"

# name, bytes, primary key columns, an extension's own condition on its configuration table
TABLES = f"""
SELECT {_NAME}, pg_table_size(c.oid), coalesce(k.columns, '{{}}'), coalesce(x.condition, '')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT array_agg(quote_ident(a.attname) ORDER BY i.place) AS columns
  FROM pg_index p CROSS JOIN LATERAL unnest(p.indkey::int2[]) WITH ORDINALITY i (number, place)
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.number
  WHERE p.indrelid = c.oid AND p.indisprimary AND i.place <= p.indnkeyatts) k ON true
LEFT JOIN LATERAL (
  SELECT t.condition FROM pg_extension CROSS JOIN LATERAL unnest(extconfig, extcondition) t (oid, condition)
  WHERE t.oid = c.oid LIMIT 1) x ON true
WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND {_USER_SCHEMA}
  AND (x.condition IS NOT NULL OR {_own("pg_class", "c")})
ORDER BY 1
"""

# name, increment, owning table, owning column (quoted), both empty where there is none
SEQUENCES = f"""
SELECT {_NAME}, s.seqincrement, coalesce(quote_ident(tn.nspname) || '.' || quote_ident(t.relname), ''), coalesce(quote_ident(a.attname), '')
FROM {_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
  AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
LEFT JOIN pg_class t ON t.oid = d.refobjid
LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE c.relpersistence <> 't' ORDER BY 1
"""

EXTENSIONS = """
SELECT x.extname, x.extversion, n.nspname FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace ORDER BY 1
"""

# What a dump holds, or rebuilds, without data that could be counted: said in the manifest.
UNCHECKED = f"""
SELECT CASE c.relkind WHEN 'm' THEN 'materialised view ' || {_NAME} || ': rebuilt by the restore, rows not compared'
                      ELSE 'foreign table ' || {_NAME} || ': its data lives elsewhere' END
FROM {_RELATION} WHERE c.relkind IN ('m', 'f')
UNION ALL
SELECT 'index ' || {_NAME} || ': invalid, and therefore in no dump'
FROM {_RELATION} JOIN pg_index i ON i.indexrelid = c.oid WHERE NOT i.indisvalid AND c.relkind = 'i'
ORDER BY 1
"""

_COLUMN_FACTS = """
concat_ws('|', row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
  a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, a.attstorage,
  to_jsonb(a) ->> 'attcompression', co.collname)
"""

SCHEMA: dict[str, str] = {
    "schema": f"SELECT quote_ident(n.nspname), '' FROM pg_namespace n WHERE {_USER_SCHEMA}"
    f" AND {_own('pg_namespace', 'n')}",
    "relation": f"""
SELECT {_NAME}, concat_ws('|', c.relkind, c.relpersistence, c.reloptions, pg_get_partkeydef(c.oid),
  pg_get_expr(c.relpartbound, c.oid), c.relrowsecurity, c.relforcerowsecurity, c.relreplident, am.amname, ts.spcname,
  CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
  CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
  (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid))
FROM {_RELATION} LEFT JOIN pg_am am ON am.oid = c.relam LEFT JOIN pg_tablespace ts ON ts.oid = c.reltablespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'""",
    "column": f"""
SELECT {_NAME} || '.' || quote_ident(a.attname), {_COLUMN_FACTS}
FROM {_RELATION} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation co ON co.oid = a.attcollation
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't'""",
    "index": f"""
SELECT {_NAME}, concat_ws('|', pg_get_indexdef(c.oid), i.indisclustered, i.indisreplident)
FROM {_RELATION} JOIN pg_index i ON i.indexrelid = c.oid AND i.indisvalid
WHERE c.relkind IN ('i', 'I') AND c.relpersistence <> 't'""",
    "constraint": f"""
SELECT {_NAME} || '.' || quote_ident(k.conname), concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated)
FROM {_RELATION} JOIN pg_constraint k ON k.conrelid = c.oid WHERE c.relpersistence <> 't'
UNION ALL
SELECT k.contypid::regtype::text || '.' || quote_ident(k.conname), concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated)
FROM pg_constraint k JOIN pg_type t ON t.oid = k.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE {_USER_SCHEMA} AND {_own("pg_type", "t")}""",
    "trigger": f"""
SELECT {_NAME} || '.' || quote_ident(g.tgname), concat_ws('|', pg_get_triggerdef(g.oid), g.tgenabled)
FROM {_RELATION} JOIN pg_trigger g ON g.tgrelid = c.oid AND NOT g.tgisinternal WHERE c.relpersistence <> 't'""",
    "function": f"""
SELECT p.oid::regprocedure::text, CASE WHEN p.prokind <> 'a' THEN pg_get_functiondef(p.oid) ELSE (
  SELECT concat_ws('|', a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, format_type(a.aggtranstype, NULL),
    a.agginitval) FROM pg_aggregate a WHERE a.aggfnoid = p.oid) END
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND {_USER_SCHEMA} AND {_own("pg_proc", "p")}""",
    "type": f"""
SELECT t.oid::regtype::text, concat_ws('|', t.typtype, format_type(nullif(t.typbasetype, 0), t.typtypmod), t.typdefault,
  t.typnotnull, (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e
    WHERE e.enumtypid = t.oid), (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {_USER_SCHEMA} AND {_own("pg_type", "t")}
LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE (c.oid IS NULL OR c.relkind = 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)""",
    "policy": f"""
SELECT {_NAME} || '.' || quote_ident(y.polname), concat_ws('|', y.polcmd, y.polpermissive,
  (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r) END, ',' ORDER BY pg_get_userbyid(r))
   FROM unnest(y.polroles) r), pg_get_expr(y.polqual, y.polrelid), pg_get_expr(y.polwithcheck, y.polrelid))
FROM {_RELATION} JOIN pg_policy y ON y.polrelid = c.oid""",
    "rule": f"""
SELECT {_NAME} || '.' || quote_ident(w.rulename), concat_ws('|', pg_get_ruledef(w.oid), w.ev_enabled)
FROM {_RELATION} JOIN pg_rewrite w ON w.ev_class = c.oid AND w.rulename <> '_RETURN'""",
    "event trigger": f"""
SELECT quote_ident(v.evtname), concat_ws('|', v.evtevent, v.evtfoid::regproc, v.evtenabled, v.evttags)
FROM pg_event_trigger v WHERE {_own("pg_event_trigger", "v")}""",
    "sequence": f"""
SELECT {_NAME}, concat_ws('|', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
  s.seqcycle) FROM {_RELATION} JOIN pg_sequence s ON s.seqrelid = c.oid WHERE c.relpersistence <> 't'""",
    "statistics": f"""
SELECT format('%I.%I', n.nspname, s.stxname), pg_get_statisticsobjdef(s.oid)
FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace AND {_USER_SCHEMA}""",
    "publication": """
SELECT quote_ident(p.pubname), concat_ws('|', to_jsonb(p) - 'oid' - 'pubowner',
  (SELECT string_agg(format('%I.%I', t.schemaname, t.tablename), ',' ORDER BY t.schemaname, t.tablename)
   FROM pg_publication_tables t WHERE t.pubname = p.pubname)) FROM pg_publication p""",
    "foreign server": f"""
SELECT quote_ident(s.srvname), concat_ws('|', w.fdwname, s.srvtype, s.srvversion, s.srvoptions)
FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE {_own("pg_foreign_server", "s")}""",
    "collation": f"""
SELECT format('%I.%I', n.nspname, co.collname), (to_jsonb(co) - 'oid' - 'collowner' - 'collnamespace' - 'collversion')::text
FROM pg_collation co JOIN pg_namespace n ON n.oid = co.collnamespace AND {_USER_SCHEMA}
  AND {_own("pg_collation", "co")}""",
    "comment": """
SELECT i.type || ' ' || i.identity, d.description
FROM pg_description d CROSS JOIN LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE d.objoid >= 16384 AND coalesce(i.schema, '') !~ '^pg_' AND d.classoid <> 'pg_extension'::regclass
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')""",
    "other": " UNION ALL ".join(
        f"SELECT i.type || ' ' || i.identity, '' FROM {catalog} o"
        f" CROSS JOIN LATERAL pg_identify_object('{catalog}'::regclass, o.oid, 0) i"
        f" WHERE o.oid >= 16384 AND {_own(catalog, 'o')}"
        for catalog in (
            "pg_operator", "pg_opclass", "pg_opfamily", "pg_cast", "pg_conversion", "pg_language", "pg_ts_config",
            "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_transform", "pg_am", "pg_foreign_data_wrapper",
        )
    ),
}  # fmt: skip

_ACL = """
SELECT o.kind, o.name, pg_get_userbyid(o.owner), ARRAY(
  SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(x.grantee) END || ': ' || x.privilege_type
    || CASE WHEN x.is_grantable THEN ' with grant option' ELSE '' END
  FROM aclexplode(o.acl) x ORDER BY 1)
"""

# kind, name, owner, privileges; a grant that was never touched reads as the default it stands for
ACCESS = f"""
{_ACL} FROM (
  SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'relation' END AS kind, {_NAME} AS name, c.relowner AS owner,
    coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", c.relowner)) AS acl
  FROM {_RELATION} WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'
  UNION ALL
  SELECT 'column', {_NAME} || '.' || quote_ident(a.attname), c.relowner, a.attacl
  FROM {_RELATION} JOIN pg_attribute a ON a.attrelid = c.oid AND a.attacl IS NOT NULL WHERE c.relpersistence <> 't'
  UNION ALL
  SELECT 'schema', quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner))
  FROM pg_namespace n WHERE {_USER_SCHEMA} AND {_own("pg_namespace", "n")}
  UNION ALL
  SELECT 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace AND {_USER_SCHEMA} AND {_own("pg_proc", "p")}
  UNION ALL
  SELECT 'type', t.oid::regtype::text, t.typowner, coalesce(t.typacl, acldefault('T', t.typowner))
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace AND {_USER_SCHEMA} AND {_own("pg_type", "t")}
  LEFT JOIN pg_class c ON c.oid = t.typrelid
  WHERE (c.oid IS NULL OR c.relkind = 'c') AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
  UNION ALL
  SELECT 'foreign server', quote_ident(s.srvname), s.srvowner, coalesce(s.srvacl, acldefault('S', s.srvowner))
  FROM pg_foreign_server s WHERE {_own("pg_foreign_server", "s")}
  UNION ALL
  SELECT 'database', quote_ident(d.datname), d.datdba, coalesce(d.datacl, acldefault('d', d.datdba))
  FROM pg_database d WHERE d.datname = current_database()
  UNION ALL
  SELECT 'default privileges', concat_ws(' ', pg_get_userbyid(f.defaclrole), 'in', coalesce(n.nspname, 'all schemas'),
    'for', f.defaclobjtype), f.defaclrole, f.defaclacl
  FROM pg_default_acl f LEFT JOIN pg_namespace n ON n.oid = f.defaclnamespace
) o ORDER BY 1, 2
"""

DATABASE = """
SELECT d.datname, pg_get_userbyid(d.datdba), pg_encoding_to_char(d.encoding), pg_database_size(d.oid),
  concat_ws(' ', coalesce(j ->> 'datlocprovider', 'c'), d.datcollate, d.datctype,
    coalesce(j ->> 'datlocale', j ->> 'daticulocale')), coalesce(j ->> 'datcollversion', '')
FROM pg_database d CROSS JOIN LATERAL to_jsonb(d) j WHERE d.datname = current_database()
"""

DATABASE_SETTINGS = """
SELECT concat_ws(': ', CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END, split_part(c, '=', 1)),
  substr(c, strpos(c, '=') + 1)
FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase AND d.datname = current_database()
CROSS JOIN LATERAL unnest(s.setconfig) c ORDER BY 1
"""

ROLES = """
SELECT r.rolname, array_remove(ARRAY[
    CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' END,
    CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN r.rolcanlogin THEN 'LOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
    CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN r.rolconnlimit >= 0 THEN 'CONNECTION LIMIT ' || r.rolconnlimit END,
    CASE WHEN r.rolvaliduntil IS NOT NULL THEN 'VALID UNTIL ' || r.rolvaliduntil::text END], NULL),
  ARRAY(SELECT DISTINCT g.rolname || CASE WHEN m.admin_option THEN ' (admin)' ELSE '' END
    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1),
  coalesce((SELECT array_agg(c ORDER BY c) FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) c
    WHERE s.setrole = r.oid AND s.setdatabase = 0), '{}')
FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1
"""

CLUSTER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
  (SELECT system_identifier::text FROM pg_control_system()), current_setting('data_checksums') = 'on',
  ARRAY(SELECT spcname::text FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY 1),
  (SELECT rolname::text FROM pg_roles WHERE oid = 10)
"""

SERVER_SETTINGS = """
SELECT name, setting FROM pg_settings
WHERE source IN ('configuration file', 'command line', 'environment variable', 'global') ORDER BY 1
"""

# Larger ones than 512 MB (2 kB a page) would be put together in the server's memory to be hashed.
LARGE_OBJECT_PAGES = 262144
LARGE_OBJECTS_TOO_BIG = (
    f"SELECT DISTINCT loid::text FROM pg_largeobject WHERE pageno >= {LARGE_OBJECT_PAGES} ORDER BY 1"
)
LARGE_OBJECTS = f"""
SELECT count(*), coalesce(sum(length(o.body)), 0)::bigint,
  coalesce(sum(hashtextextended((o.oid::text || ':' || md5(o.body)) COLLATE "C", 0)), 0)::text
FROM (SELECT m.oid, lo_get(m.oid) AS body FROM pg_largeobject_metadata m
      WHERE NOT EXISTS (SELECT FROM pg_largeobject p WHERE p.loid = m.oid AND p.pageno >= {LARGE_OBJECT_PAGES})
      OFFSET 0) o
"""
