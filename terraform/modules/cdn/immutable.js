// Below /assets/ a name has the digest of what it names: who has it need not ask again. An error is not what was named.
function handler(event) {
  var response = event.response;
  if (response.statusCode === 200 || response.statusCode === 206 || response.statusCode === 304) {
    response.headers['cache-control'] = { value: 'public, max-age=31536000, immutable' };
  }
  return response;
}
