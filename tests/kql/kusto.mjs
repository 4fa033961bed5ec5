// Microsoft's own KQL engine, over the table's schema and the functions of the content.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
require('@kusto/language-service-next/bridge.min.js');
require('@kusto/language-service-next/Kusto.Language.Bridge.min.js');
const { Bridge, Kusto } = globalThis;
const { Symbols } = Kusto.Language;
const list = (collection) => (collection == null ? [] : Array.isArray(collection) ? collection : Bridge.toArray(collection));

/**
 * What Microsoft Sentinel's own function gives: nothing while nobody has filled the list.
 * https://learn.microsoft.com/azure/sentinel/watchlists-queries
 */
export const WATCHLIST = { name: '_GetWatchlist', parameters: 'watchlistAlias: string', body: 'datatable(SearchKey: string) []' };

/** A database of tables (`{ name: { column: type } }`) and functions (`{ name, parameters, body }`). */
export function database(tables, functions = []) {
  const members = Object.entries(tables).map(([name, columns]) => {
    const declared = Object.entries(columns).map(([column, type]) => `['${column}']:${type}`);
    return new Symbols.TableSymbol.$ctor7(name, `(${declared.join(', ')})`, null);
  });
  for (const { name, parameters, body } of [WATCHLIST, ...functions]) {
    members.push(new Symbols.FunctionSymbol.$ctor16(name, `(${parameters ?? ''})`, `{\n${body}\n}`, null));
  }
  return Kusto.Language.GlobalState.Default.WithDatabase(new Symbols.DatabaseSymbol.ctor('LogAnalytics', members));
}

/** What the engine says of a query (`line: code: message «text»`), and its columns (`{ name: type }`) where it is a table. */
export function analyse(query, globals) {
  const code = Kusto.Language.KustoCode.ParseAndAnalyze(query, globals);
  const columns = code.ResultType?.Columns && Object.fromEntries(list(code.ResultType.Columns).map((one) => [one.Name, one.Type.Name]));
  return { problems: problems(code, query), columns };
}

/** What the parser alone says of a query. */
export const syntax = (query) => problems(Kusto.Language.KustoCode.Parse(query), query);

function problems(code, query) {
  return list(code.GetDiagnostics()).filter((one) => one.Severity === 'Error' || one.Severity === 'Warning').map((one) => {
    const line = query.slice(0, one.Start).split('\n').length;
    return `${line}: ${one.Code}: ${one.Message} «${query.slice(one.Start, one.Start + one.Length).slice(0, 40)}»`;
  });
}
