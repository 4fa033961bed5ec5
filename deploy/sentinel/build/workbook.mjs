// Lays the tiles out as a workbook: a time range, a tab per `tab`, a query per tile.
const DAYS = [1, 3, 7, 14, 30, 90].map((days) => ({ durationMs: days * 86_400_000 }));
const SHOWN = { tiles: 'tiles', table: 'table', timechart: 'timechart', barchart: 'barchart', piechart: 'piechart', map: 'map' };

export const tabs = (tiles) => [...new Set(tiles.map((tile) => tile.meta.tab))];

export function workbook(tiles) {
  return {
    version: 'Notebook/1.0',
    items: [
      { type: 1, name: 'head', content: { json: '## 1Password events\nShipped by opship. Each event counts once, however often it was ingested.' } },
      parameters(),
      links(tabs(tiles)),
      ...tiles.map(tile),
    ],
    fallbackResourceIds: [],
    $schema: 'https://github.com/Microsoft/Application-Insights-Workbooks/blob/master/schema/workbook.json',
  };
}

function parameters() {
  const range = {
    id: 'a7c1f0de-7f4e-4a8e-9f0b-5b3c60b54d01', version: 'KqlParameterItem/1.0', name: 'TimeRange', label: 'Time range', type: 4, isRequired: true,
    value: { durationMs: 7 * 86_400_000 }, typeSettings: { selectableValues: DAYS, allowCustom: true },
  };
  return { type: 9, name: 'parameters', content: { version: 'KqlParameterItem/1.0', parameters: [range], style: 'pills', queryType: 0 } };
}

function links(names) {
  const tab = (name, at) => ({
    id: `a7c1f0de-7f4e-4a8e-9f0b-5b3c60b54e${String(at).padStart(2, '0')}`, cellValue: 'Tab', linkTarget: 'parameter', linkLabel: name,
    subTarget: name, preText: '', style: 'link',
  });
  return { type: 11, name: 'tabs', content: { version: 'LinkItem/1.0', style: 'tabs', links: names.map(tab) } };
}

function tile({ name, meta, query }) {
  const content = {
    version: 'KqlItem/1.0', query, size: meta.width === '100' ? 1 : 0, title: meta.title, timeContextFromParameter: 'TimeRange',
    queryType: 0, resourceType: 'microsoft.operationalinsights/workspaces', visualization: SHOWN[meta.show], ...settings(meta.show),
  };
  const shown = { parameterName: 'Tab', comparison: 'isEqualTo', value: meta.tab };
  return { type: 3, name, customWidth: meta.width, conditionalVisibility: shown, content };
}

function settings(show) {
  if (show === 'tiles') {
    const number = { columnMatch: 'Value', formatter: 12, numberFormat: { unit: 17, options: { style: 'decimal' } } };
    return { tileSettings: { titleContent: { columnMatch: 'Name', formatter: 1 }, leftContent: number, showBorder: true } };
  }
  if (show === 'map') {
    return {
      mapSettings: {
        locInfo: 'LatLong', latitude: 'Latitude', longitude: 'Longitude', sizeSettings: 'SignIns', sizeAggregation: 'Sum', labelSettings: 'City',
        legendMetric: 'SignIns', legendAggregation: 'Sum',
        itemColorSettings: { nodeColorField: 'Failures', colorAggregation: 'Sum', type: 'heatmap', heatmapPalette: 'greenRed' },
      },
    };
  }
  return show === 'table' ? { gridSettings: { rowLimit: 1000, filter: true } } : {};
}
